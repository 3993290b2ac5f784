//! A proxy on loopback that breaks connections on purpose.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to one direction of one connection.
#[derive(Clone, Default)]
pub struct Plan {
    /// Cut both directions after this many bytes.
    pub cut_after: Option<u64>,
    /// After this many bytes let nothing through any more, and keep the connection open.
    pub stall_after: Option<u64>,
    /// Close this direction alone after this many bytes.
    pub half_close_after: Option<u64>,
    /// Flip the lowest bit of the byte at this position.
    pub flip_at: Option<u64>,
    /// The most bytes that are passed on at a time, after the first so many bytes.
    pub piece: Option<(u64, usize)>,
    /// Cut both directions after this time.
    pub life: Option<Duration>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// Added to each piece.
    pub delay: Option<Duration>,
    /// Called once after this many bytes, before any more pass.
    pub pause: Option<(u64, Arc<dyn Fn() + Send + Sync>)>,
}

/// A listening proxy; it stops when dropped.
pub struct Proxy {
    address: SocketAddr,
    stop: Option<mpsc::Sender<()>>,
}

impl Proxy {
    /// Passes connections on to `target`. `plans` says for each connection, by number from 0, what happens to the
    /// bytes towards the target and to those that come back.
    pub fn start(target: SocketAddr, plans: impl Fn(usize) -> (Plan, Plan) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = mpsc::channel();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if stopped.try_recv().is_ok() {
                    return;
                }
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (there, back) = plans(number);
                if let Some(life) = there.life.into_iter().chain(back.life).min() {
                    let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                    thread::spawn(move || {
                        thread::sleep(life);
                        both.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
                    });
                }
                for (plan, from, to) in [
                    (there, client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (back, server, client),
                ] {
                    thread::spawn(move || pass(&plan, from, to));
                }
            }
        });
        Self { address, stop: Some(stop) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
            let _ = TcpStream::connect(self.address);
        }
    }
}

fn pass(plan: &Plan, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0u64;
    let mut paused = false;
    loop {
        let mut room = match plan.piece {
            Some((after, piece)) if passed >= after => piece as u64,
            Some((after, _)) => (after - passed).min(buffer.len() as u64),
            None => buffer.len() as u64,
        };
        let limits = [plan.cut_after, plan.stall_after, plan.half_close_after];
        let pause_at = plan.pause.as_ref().filter(|_| !paused).map(|(at, _)| *at);
        for limit in limits.into_iter().chain([pause_at]).flatten() {
            room = room.min(limit - passed);
        }
        if room == 0 {
            if plan.cut_after == Some(passed) {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
            if plan.half_close_after == Some(passed) {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if plan.stall_after == Some(passed) {
                // Holds both sockets open, reading nothing, until the peer gives up.
                let mut byte = [0];
                while to.peek(&mut byte).is_ok_and(|n| n > 0) && from.take_error().is_ok_and(|e| e.is_none())
                {
                    thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            if let Some((_, call)) = &plan.pause {
                call();
                paused = true;
            }
            continue;
        }
        let n = match from.read(&mut buffer[..room as usize]) {
            Ok(n) if n > 0 => n,
            _ => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        };
        if let Some(at) = plan.flip_at
            && (passed..passed + n as u64).contains(&at)
        {
            buffer[(at - passed) as usize] ^= 1;
        }
        if let Some(delay) = plan.delay {
            thread::sleep(delay);
        }
        if let Some(rate) = plan.rate {
            thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
        }
        if to.write_all(&buffer[..n]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        passed += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::random;

    /// Sends bytes through a proxy with this plan; gives what arrived until the end of the connection.
    fn through(plan: Plan, bytes: &[u8]) -> Vec<u8> {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), move |_| (plan.clone(), Plan::default()));
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let (mut server, _) = target.accept().unwrap();
        let bytes = bytes.to_vec();
        let writer = thread::spawn(move || {
            let _ = client.write_all(&bytes);
            let _ = client.shutdown(Shutdown::Write);
            client
        });
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut arrived = Vec::new();
        let _ = server.read_to_end(&mut arrived);
        drop(server);
        writer.join().unwrap();
        arrived
    }

    #[test]
    fn the_proxy_does_what_its_plan_says_and_nothing_else() {
        let bytes = random(200_000, 1);
        assert_eq!(through(Plan::default(), &bytes), bytes);
        assert_eq!(
            through(Plan { piece: Some((0, 7)), ..Plan::default() }, &bytes[..20_000]),
            &bytes[..20_000]
        );
        for at in [1, 100_000, 199_999] {
            assert_eq!(
                through(Plan { cut_after: Some(at), ..Plan::default() }, &bytes),
                &bytes[..at as usize]
            );
            assert_eq!(
                through(Plan { stall_after: Some(at), ..Plan::default() }, &bytes),
                &bytes[..at as usize]
            );
            assert_eq!(
                through(Plan { half_close_after: Some(at), ..Plan::default() }, &bytes),
                &bytes[..at as usize]
            );
            let mut flipped = bytes.clone();
            flipped[at as usize] ^= 1;
            assert_eq!(through(Plan { flip_at: Some(at), ..Plan::default() }, &bytes), flipped);
        }
    }

    #[test]
    fn a_connection_of_the_proxy_lives_as_long_as_its_plan_says() {
        let plan = Plan { life: Some(Duration::from_millis(50)), rate: Some(1_000_000), ..Plan::default() };
        let bytes = random(200_000, 3);
        let arrived = through(plan, &bytes);
        assert!(arrived.len() < bytes.len() && bytes.starts_with(&arrived), "{} bytes", arrived.len());
    }

    #[test]
    fn the_proxy_pauses_before_the_next_byte_and_keeps_to_its_rate() {
        let seen = Arc::new(Mutex::new(false));
        let told = seen.clone();
        let pause: Arc<dyn Fn() + Send + Sync> = Arc::new(move || *told.lock().unwrap() = true);
        let plan = Plan { pause: Some((5000, pause)), rate: Some(2_000_000), ..Plan::default() };
        let bytes = random(100_000, 2);
        let started = std::time::Instant::now();
        assert_eq!(through(plan, &bytes), bytes);
        assert!(*seen.lock().unwrap());
        assert!(started.elapsed() >= Duration::from_millis(50));
    }
}
