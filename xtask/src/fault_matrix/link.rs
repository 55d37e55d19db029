//! A link between a gateway and a worker that can be cut either way, and slowed.
//!
//! In:     datagrams from both. Out: the same, unless the link is cut that way; later, if it is slow.
//! Touches: two loopback sockets and two threads for each link.
//! Holds:  needs no privileges; whoever last sent to the front is whom the worker's datagrams go to.
//! Absent: when (`fault_matrix`).

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// How often a thread looks whether the link is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// No datagram is longer.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// One link.
pub struct Link {
    /// Where the gateway finds the worker.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut_to_worker: AtomicBool,
    cut_from_worker: AtomicBool,
    /// For each datagram, one after the other.
    delay_ms: AtomicU64,
    over: AtomicBool,
    gateway: Mutex<Option<SocketAddr>>,
}

impl Link {
    /// Leads to a worker.
    pub fn to(worker: SocketAddr) -> Result<Link> {
        let (front, back) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        back.connect(worker)?;
        let state = Arc::<State>::default();
        let address = front.local_addr()?;
        for (from, to, is_front) in
            [(front.try_clone()?, back.try_clone()?, true), (back.try_clone()?, front.try_clone()?, false)]
        {
            from.set_read_timeout(Some(LOOK))?;
            let state = Arc::clone(&state);
            thread::spawn(move || pass(&from, &to, is_front, &state));
        }
        Ok(Link { address, state })
    }

    /// Cuts it, or mends it, either way.
    pub fn cut(&self, to_worker: bool, from_worker: bool) {
        self.state.cut_to_worker.store(to_worker, Ordering::Relaxed);
        self.state.cut_from_worker.store(from_worker, Ordering::Relaxed);
    }

    /// Every datagram takes so long, one after the other.
    pub fn slow(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
    }
}

fn pass(from: &UdpSocket, to: &UdpSocket, is_front: bool, state: &State) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    while !state.over.load(Ordering::Relaxed) {
        // A worker that is gone has its port closed, which is heard as an error here.
        let Ok((count, sender)) = from.recv_from(&mut datagram) else { continue };
        let mut gateway = state.gateway.lock().expect("nobody panics while holding it");
        let (target, cut) = match is_front {
            true => {
                *gateway = Some(sender);
                (None, &state.cut_to_worker)
            }
            false => (*gateway, &state.cut_from_worker),
        };
        drop(gateway);
        if cut.load(Ordering::Relaxed) {
            continue;
        }
        thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::Relaxed)));
        // What is lost is sent again, as on any link.
        let _ = match (is_front, target) {
            (true, _) => to.send(&datagram[..count]),
            (false, Some(target)) => to.send_to(&datagram[..count], target),
            (false, None) => Ok(0),
        };
    }
}
