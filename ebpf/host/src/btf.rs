//! Where the kernel that runs here keeps a field of a structure, read from its own description (BTF,
//! Documentation/bpf/btf.rst). A program compiled elsewhere is told these offsets before it is loaded.

use std::{fs, io};

/// Where the kernel describes itself, with CONFIG_DEBUG_INFO_BTF.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

// Source: include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES_MIN: usize = 24;
const TYPE_BYTES: usize = 12;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Structures may lie in each other and behind typedefs; none of the kernel's do so deeper.
const DEPTH_MAX: usize = 16;

/// The types of a kernel.
#[derive(Debug)]
pub(crate) struct Btf {
    data: Vec<u8>,
    strings_at: usize,
    /// Of each type, from 1: where it begins.
    types_at: Vec<usize>,
}

/// What a type says before what follows it.
#[derive(Clone, Copy, Debug)]
struct Type {
    at: usize,
    name_at: usize,
    kind: u32,
    members_count: usize,
    has_bitfields: bool,
    /// Its size, or the type that it refers to.
    word: u32,
}

impl Btf {
    /// Of the kernel that runs here.
    ///
    /// # Errors
    /// It does not describe itself, or in a way that is not understood.
    pub fn of_this_kernel() -> io::Result<Btf> {
        Btf::parse(fs::read(VMLINUX)?)
    }

    fn parse(data: Vec<u8>) -> io::Result<Btf> {
        let word = |at: usize| word_at(&data, at).ok_or_else(|| invalid("it is cut"));
        let magic = data.get(..2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        if magic != Some(MAGIC) || data.len() < HEADER_BYTES_MIN {
            return Err(invalid("it does not begin as BTF of this machine's byte order does"));
        }
        let header_bytes = word(4)? as usize;
        let types_at = header_bytes + word(8)? as usize;
        let types_end = types_at + word(12)? as usize;
        let strings_at = header_bytes + word(16)? as usize;
        if data.len() < types_end || data.len() < strings_at + word(20)? as usize {
            return Err(invalid("it is cut"));
        }
        let mut btf = Btf {
            data,
            strings_at,
            types_at: Vec::new(),
        };
        let mut at = types_at;
        while at < types_end {
            let ty = btf.type_at(at).ok_or_else(|| invalid("a type is cut"))?;
            btf.types_at.push(at);
            let more_bytes = following_bytes(ty.kind, ty.members_count);
            at += TYPE_BYTES + more_bytes.ok_or_else(|| invalid(format!("a type of kind {}", ty.kind)))?;
        }
        Ok(btf)
    }

    /// Bytes from the beginning of `structure` to the field at the end of `path`, each in the one before.
    ///
    /// # Errors
    /// There is no such structure or field, or it is a bit field.
    pub fn offset_bytes(&self, structure: &str, path: &[&str]) -> io::Result<u32> {
        let missing = || invalid(format!("there is no {structure}.{}", path.join(".")));
        let mut at = self
            .types_at
            .iter()
            .copied()
            .find(|&at| {
                self.type_at(at)
                    .is_some_and(|ty| ty.kind == KIND_STRUCT && self.name(ty.name_at) == Some(structure.as_bytes()))
            })
            .ok_or_else(missing)?;
        let mut bits = 0;
        for name in path {
            let ty = self.type_at(at).ok_or_else(missing)?;
            let (member_bits, type_id) = self.member(ty, name, DEPTH_MAX).ok_or_else(missing)?;
            bits += member_bits;
            at = self.resolved(type_id).ok_or_else(missing)?;
        }
        match bits % 8 {
            0 => Ok(bits / 8),
            _ => Err(invalid(format!("{structure}.{} is a bit field", path.join(".")))),
        }
    }

    /// The member of that name, also of unnamed structures and unions within: its bits from the beginning, and its type.
    fn member(&self, ty: Type, name: &str, depth_max: usize) -> Option<(u32, u32)> {
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth_max == 0 {
            return None;
        }
        for index in 0..ty.members_count {
            let at = ty.at + TYPE_BYTES + index * 12;
            let (name_at, type_id, place) = (
                word_at(&self.data, at)?,
                word_at(&self.data, at + 4)?,
                word_at(&self.data, at + 8)?,
            );
            // With bit fields the upper byte is a field's width.
            let bits = if ty.has_bitfields { place & 0x00ff_ffff } else { place };
            if self.name(name_at as usize) == Some(name.as_bytes()) {
                return Some((bits, type_id));
            }
            if name_at == 0
                && let Some(inner) = self.resolved(type_id).and_then(|at| self.type_at(at))
                && let Some((inner_bits, type_id)) = self.member(inner, name, depth_max - 1)
            {
                return Some((bits + inner_bits, type_id));
            }
        }
        None
    }

    /// Where the type begins that is behind names and qualifiers.
    fn resolved(&self, mut type_id: u32) -> Option<usize> {
        for _ in 0..DEPTH_MAX {
            let at = *self.types_at.get((type_id as usize).checked_sub(1)?)?;
            let ty = self.type_at(at)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => type_id = ty.word,
                _ => return Some(at),
            }
        }
        None
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word_at(&self.data, at + 4)?;
        Some(Type {
            at,
            name_at: word_at(&self.data, at)? as usize,
            kind: info >> 24 & 0x1f,
            members_count: (info & 0xffff) as usize,
            has_bitfields: info >> 31 == 1,
            word: word_at(&self.data, at + 8)?,
        })
    }

    fn name(&self, name_at: usize) -> Option<&[u8]> {
        let bytes = self.data.get(self.strings_at + name_at..)?;
        let len = bytes.iter().position(|&byte| byte == 0)?;
        Some(&bytes[..len])
    }
}

/// What follows a type's three words; `None` for a kind that is unknown, behind which nothing can be found.
fn following_bytes(kind: u32, members_count: usize) -> Option<usize> {
    Some(match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * members_count,
        KIND_ENUM | KIND_FUNC_PROTO => 8 * members_count,
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | KIND_TYPE_TAG => 0,
        _ => return None,
    })
}

fn word_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct a { int x; struct { union { int y; int z; }; }; b_t b; int bit:1; }`, `typedef const struct b b_t`, `struct b { int w; int v; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0a\0x\0y\0z\0b_t\0b\0v\0w\0bit\0int\0";
        let at = |name: &str| {
            let find = format!("\0{name}\0");
            strings
                .windows(find.len())
                .position(|bytes| bytes == find.as_bytes())
                .unwrap() as u32
                + 1
        };
        let info = |kind: u32, count: u32, bitfields: u32| bitfields << 31 | kind << 24 | count;
        let mut types: Vec<u32> = Vec::new();
        types.extend([at("int"), info(KIND_INT, 0, 0), 4, 32]); // 1
        types.extend([0, info(KIND_UNION, 2, 0), 4, at("y"), 1, 0, at("z"), 1, 0]); // 2
        types.extend([0, info(KIND_STRUCT, 1, 0), 4, 0, 2, 0]); // 3
        types.extend([at("b"), info(KIND_STRUCT, 2, 0), 8, at("w"), 1, 0, at("v"), 1, 32]); // 4
        types.extend([0, info(KIND_CONST, 0, 0), 4]); // 5
        types.extend([at("b_t"), info(KIND_TYPEDEF, 0, 0), 5]); // 6
        types.extend([at("a"), info(KIND_STRUCT, 4, 1), 20]); // 7
        types.extend([at("x"), 1, 0, 0, 3, 32, at("b"), 6, 64, at("bit"), 1, 1 << 24 | 129]);
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let types_bytes = 4 * types.len() as u32;
        for word in [24, 0, types_bytes, types_bytes, strings.len() as u32]
            .into_iter()
            .chain(types)
        {
            data.extend(word.to_ne_bytes());
        }
        data.extend(strings);
        data
    }

    #[test]
    fn fields_are_found_in_unnamed_parts_and_behind_typedefs() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset_bytes("a", &["x"]).unwrap(), 0);
        assert_eq!(btf.offset_bytes("a", &["z"]).unwrap(), 4);
        assert_eq!(btf.offset_bytes("a", &["b", "v"]).unwrap(), 12);
        for (structure, path) in [("a", &["w"][..]), ("c", &["x"]), ("a", &["x", "w"]), ("a", &["bit"])] {
            let error = btf.offset_bytes(structure, path).unwrap_err().to_string();
            assert!(error.contains(&format!("{structure}.{}", path.join("."))), "{error}");
        }
    }

    #[test]
    fn what_is_cut_or_of_another_byte_order_is_an_error() {
        let whole = sample();
        let types_end = 24 + word_at(&whole, 12).unwrap() as usize;
        for len in 0..types_end {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len} bytes");
        }
        let mut swapped = whole;
        swapped.swap(0, 1);
        assert!(Btf::parse(swapped).is_err());
    }

    #[test]
    fn this_kernel_says_where_its_queues_are() {
        match Btf::of_this_kernel() {
            Ok(btf) => {
                // A queueing discipline counts what waits behind its own functions.
                assert!(btf.offset_bytes("Qdisc", &["qstats", "backlog"]).unwrap() > 16);
                assert!(btf.offset_bytes("sk_buff", &["dev"]).unwrap() > 0);
            }
            Err(error) => println!("not run: {VMLINUX}: {error}"),
        }
    }
}
