//! Packets in one array. A place is used again as soon as its packet is gone: the array is as long as the most packets
//! that were ever under way at once.

#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T: Copy> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// # Panics
    /// With 2³² packets under way.
    #[inline]
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = value;
            return place;
        }
        let place = u32::try_from(self.places.len()).expect("fewer than 2^32 packets under way");
        self.places.push(value);
        place
    }

    #[inline]
    pub fn get(&self, place: u32) -> &T {
        &self.places[place as usize]
    }

    #[inline]
    pub fn remove(&mut self, place: u32) -> T {
        self.free.push(place);
        self.places[place as usize]
    }

    /// How many are in use.
    pub fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
