//! One way without backlog: the next message is sent when the one before has arrived.

use super::converse::End;
use super::fault::Fault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sending end of a pair that goes message by message.
pub struct PacedPut<E> {
    end: E,
    arrived: Arc<AtomicU64>,
}

/// The receiving end.
pub struct PacedTake<E> {
    end: E,
    arrived: Arc<AtomicU64>,
}

/// Paces a pair. What passes between them beside the messages is one word of memory.
pub fn paced<P: End, T: End>(put: P, take: T) -> (PacedPut<P>, PacedTake<T>) {
    let arrived = Arc::new(AtomicU64::new(0));
    (PacedPut { end: put, arrived: Arc::clone(&arrived) }, PacedTake { end: take, arrived })
}

impl<E: End> End for PacedPut<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        // Relaxed: the word carries no data but itself.
        if self.arrived.load(Ordering::Relaxed) < number { Ok(false) } else { self.end.send(number) }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.end.receive()
    }
}

impl<E: End> End for PacedTake<E> {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.end.send(number)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let received = self.end.receive()?;
        if let Some(number) = received {
            self.arrived.store(number + 1, Ordering::Relaxed);
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes every message, and has those that it is given.
    struct Fake(Vec<u64>);

    impl End for Fake {
        fn send(&mut self, number: u64) -> Result<bool, Fault> {
            self.0.push(number);
            Ok(true)
        }

        fn receive(&mut self) -> Result<Option<u64>, Fault> {
            Ok(self.0.pop())
        }
    }

    #[test]
    fn a_message_waits_for_the_one_before() {
        let (mut put, mut take) = paced(Fake(Vec::new()), Fake(vec![0]));
        assert!(put.send(0).unwrap());
        assert!(!put.send(1).unwrap());
        assert_eq!(take.receive().unwrap(), Some(0));
        assert!(put.send(1).unwrap());
        assert_eq!(take.receive().unwrap(), None);
        assert!(!put.send(2).unwrap());
        assert_eq!(put.end.0, [0, 1]);
    }
}
