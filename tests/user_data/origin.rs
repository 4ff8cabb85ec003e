//! A server of one file that answers as it is told, one request after the other.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// How one request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With what was asked for.
    Good,
    /// The same, but from the beginning, whatever was asked for.
    Whole,
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// These bytes instead of the file.
    Other(Vec<u8>),
    /// An error.
    Status(u16),
    /// After this many bytes of the body nothing more comes.
    Stall(usize),
}

/// The server. Its threads end with the test's process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// The first byte that each request asked for.
    requests: Arc<Mutex<Vec<usize>>>,
    // Dropping it lets stalled connections go.
    _alive: mpsc::Sender<()>,
}

impl Origin {
    /// Serves `file` on `listener`: the answers in turn, and `Good` after them.
    pub(crate) fn serve(listener: TcpListener, file: Vec<u8>, answers: Vec<Answer>) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (alive, until) = mpsc::channel::<()>();
        let seen = requests.clone();
        thread::spawn(move || {
            let mut answers = answers.into_iter();
            for stream in listener.incoming() {
                let answer = answers.next().unwrap_or(Answer::Good);
                // A client that was killed is no failure of the server.
                let _ = reply(stream.unwrap(), &file, &answer, &seen, &until);
            }
        });
        Self { address, requests, _alive: alive }
    }

    /// Serves on a port of its own.
    pub(crate) fn new(file: Vec<u8>, answers: Vec<Answer>) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap(), file, answers)
    }

    pub(crate) fn requests(&self) -> Vec<usize> {
        self.requests.lock().unwrap().clone()
    }
}

fn reply(
    mut stream: TcpStream,
    file: &[u8],
    answer: &Answer,
    seen: &Mutex<Vec<usize>>,
    until: &mpsc::Receiver<()>,
) -> std::io::Result<()> {
    let mut from = 0;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    seen.lock().unwrap().push(from);
    let (first, body) = match answer {
        Answer::Status(status) => {
            let head = format!(
                "HTTP/1.1 {status} Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return stream.write_all(head.as_bytes());
        }
        Answer::Whole => (0, file),
        Answer::Other(bytes) => (0, bytes.as_slice()),
        Answer::Good | Answer::Cut(_) | Answer::Stall(_) => (from, file),
    };
    let status = if first > 0 { "206 Partial Content" } else { "200 OK" };
    let (total, rest) = (body.len(), &body[first..]);
    let mut head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", rest.len());
    if first > 0 {
        head += &["Content-Range: bytes ", &format!("{first}-{}/{total}\r\n", total - 1)].concat();
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    match answer {
        Answer::Cut(bytes) => stream.write_all(&rest[..*bytes]),
        Answer::Stall(bytes) => {
            stream.write_all(&rest[..*bytes])?;
            let _ = until.recv();
            Ok(())
        }
        _ => stream.write_all(rest),
    }
}
