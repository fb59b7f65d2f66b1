//! A TCP program of two commands, the same in every contender's container: one that answers, and one that measures.
//!
//! The first byte of a connection says what it is for: `b`, bytes that are counted and not kept, one byte back at their
//! end; `p`, every byte is sent back.
//!
//! Who sends has the first processor and who answers the last: left to the scheduler, the same engine's bytes vary by a
//! factor of two with where the two happen to run.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// How long bytes are sent for one measurement.
const SENDING: Duration = Duration::from_millis(500);

/// Round trips of one measurement.
const TRIPS: u32 = 4000;

/// Keeps this thread on the first of its processors, or on the last.
fn pin(first: bool) -> std::io::Result<()> {
    let all = sched_getaffinity(None)?;
    let mut own = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
    let chosen = if first { own.next() } else { own.next_back() };
    let mut set = CpuSet::new();
    if let Some(cpu) = chosen {
        set.set(cpu);
        sched_setaffinity(None, &set)?;
    }
    Ok(())
}

/// `bench serve PORT`: answers until it is killed.
pub(super) fn serve(arguments: &[String]) -> Result<()> {
    let [port] = arguments else { return Err("serve: wrong arguments".into()) };
    let listener = TcpListener::bind(("0.0.0.0", port.parse::<u16>()?))?;
    pin(false)?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("serve: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            break;
        }
        if kind == *b"p" {
            stream.write_all(&buffer[..count])?;
        }
    }
    stream.write_all(b"e")
}

/// `bench talk ADDRESS:PORT`: prints the bytes per second in MB, and the microseconds of a round trip.
pub(super) fn talk(arguments: &[String]) -> Result<()> {
    let [address] = arguments else { return Err("talk: wrong arguments".into()) };
    let connect = |kind: &[u8]| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(kind)?;
        Ok(stream)
    };
    pin(true)?;
    let mut stream = connect(b"b")?;
    let buffer = vec![0; 256 << 10];
    let (begin, mut sent) = (Instant::now(), 0.0);
    while begin.elapsed() < SENDING {
        stream.write_all(&buffer)?;
        sent += buffer.len() as f64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    let rate = sent / 1e6 / begin.elapsed().as_secs_f64();
    let mut stream = connect(b"p")?;
    let begin = Instant::now();
    for _ in 0..TRIPS {
        stream.write_all(b"p")?;
        stream.read_exact(&mut [0])?;
    }
    println!("{rate:.1} {:.3}", begin.elapsed().as_secs_f64() * 1e6 / f64::from(TRIPS));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_or_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                answer(listener.accept().unwrap().0).unwrap();
            }
        });
        for (sent, wanted) in [("bsome bytes", "e"), ("psome bytes", "some bytese")] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, wanted);
        }
        server.join().unwrap();
    }
}
