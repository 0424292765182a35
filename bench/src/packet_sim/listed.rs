//! Between lists of flows and what is simulated: a list becomes flows and questions, and those become a list again.

use super::{Flow, FlowKind, Point, Query, Setup, loads::Builder};
use crate::scenario::flow_list::{FlowList, ListedFlow, ListedQuery};

impl Builder<'_> {
    /// The flows of a list, in its order.
    pub(super) fn list(&mut self, list: &FlowList) {
        let number = |flow: &ListedFlow| flow.query.map(|query| query.number);
        for same in list
            .flows
            .chunk_by(|a, b| number(a).is_some() && number(a) == number(b))
        {
            let flow = same[0];
            let options = self.listed.get(flow.load as usize).copied().unwrap_or(0);
            match flow.query {
                Some(query) => {
                    let servers = same.iter().map(|flow| flow.source).collect();
                    self.ask(question(&flow, &query, same.len() as u32), servers, options);
                }
                None => {
                    self.watched_host.get_or_insert(flow.destination);
                    self.flows.push(Flow {
                        from: flow.source,
                        to: flow.destination,
                        options,
                        kind: match flow.bytes {
                            Some(bytes) => FlowKind::Finite {
                                bytes,
                                start: flow.start,
                            },
                            None => FlowKind::Endless { start: flow.start },
                        },
                    });
                }
            }
        }
    }
}

fn question(flow: &ListedFlow, query: &ListedQuery, flows_count: u32) -> Query {
    Query {
        client: flow.destination,
        flows_count,
        is_fresh: query.is_fresh,
        answer_bytes: flow.bytes.unwrap_or(0),
        rounds_count: query.rounds_count,
        start: flow.start,
        pause: query.pause,
        jitter: query.jitter,
        request_bytes: query.request_bytes,
        // Whoever adds it knows these.
        flows_first: 0,
        retry: dataplane_sim::SimTime::ZERO,
    }
}

impl Point<'_> {
    /// What is sent, as a list that gives the same run again when it stands in the place of this scenario's loads.
    pub fn flow_list(&self, setup: &Setup) -> FlowList {
        let loads = self.loads_of_options();
        let of = |flow: &Flow| ListedFlow {
            start: dataplane_sim::SimTime::ZERO,
            source: flow.from,
            destination: flow.to,
            bytes: None,
            load: loads.get(usize::from(flow.options)).copied().unwrap_or(0),
            query: None,
        };
        let mut list = FlowList::default();
        for (number, flow) in (0_u32..).zip(setup.flows.iter()) {
            let listed = of(flow);
            match flow.kind {
                FlowKind::Finite { bytes, start } => list.flows.push(ListedFlow {
                    start,
                    bytes: Some(bytes),
                    ..listed
                }),
                FlowKind::Endless { start } => list.flows.push(ListedFlow { start, ..listed }),
                FlowKind::Answer { query: index } => {
                    let query = &setup.queries[index as usize];
                    // Connections of later rounds follow from those of the first.
                    if query.flows_of(0).contains(&number) {
                        list.flows.push(ListedFlow {
                            start: query.start,
                            bytes: Some(query.answer_bytes),
                            query: Some(ListedQuery {
                                number: index,
                                rounds_count: query.rounds_count,
                                pause: query.pause,
                                jitter: query.jitter,
                                request_bytes: query.request_bytes,
                                is_fresh: query.is_fresh,
                            }),
                            ..listed
                        });
                    }
                }
            }
        }
        list
    }

    /// By kind of flow: a load that has it. The scenario's own is the first; each load with settings of its own adds one.
    fn loads_of_options(&self) -> Vec<u32> {
        let loads = (0_u32..).zip(&self.file.load);
        let (own, plain): (Vec<_>, Vec<_>) = loads.partition(|(_, load)| load.get_ref().tcp.is_some());
        let first = plain.first().map_or(0, |(number, _)| *number);
        std::iter::once(first)
            .chain(own.into_iter().map(|(number, _)| number))
            .collect()
    }
}
