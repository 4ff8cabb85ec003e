//! The smallest programs there are: each says one line and ends. What follows the code tells the
//! stand-in for systemd how an agent of that version behaves.

/// How a program behaves when it is asked for its version, and as an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers, and is reached by the operator.
    Good,
    /// Starts, and is not on its socket.
    Silent,
    /// Answers, and no call of the operator reaches it.
    Lonely,
    /// systemd cannot start it.
    Dead,
    /// A good agent with an installer that does not start.
    WithoutInstaller,
    /// Ends with an error when asked for its version.
    Crashing,
    /// Never ends when asked for its version.
    Hanging,
    /// Says another version than the release.
    OtherVersion,
}

impl Behaviour {
    const ALL: [Self; 8] = [
        Self::Good,
        Self::Silent,
        Self::Lonely,
        Self::Dead,
        Self::WithoutInstaller,
        Self::Crashing,
        Self::Hanging,
        Self::OtherVersion,
    ];

    /// The behaviour of a program that [`program`] made.
    pub(crate) fn of(program: &[u8]) -> Self {
        let all = Self::ALL.into_iter();
        let mut all = all.filter(|one| program.ends_with(format!("{one:?}").as_bytes()));
        all.next().expect("a program of this test")
    }
}

const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;

/// A program for this machine that says `moorage-agent {version}`, or misbehaves.
pub(crate) fn program(version: &str, behaviour: Behaviour) -> Vec<u8> {
    let said = match behaviour {
        Behaviour::OtherVersion => "moorage-agent 0.0.0\n".to_owned(),
        _ => format!("moorage-agent {version}\n"),
    };
    let code = match behaviour {
        Behaviour::Hanging => spin(),
        Behaviour::Crashing => say(&said, 3),
        _ => say(&said, 0),
    };
    let mut bytes = headers(HEADERS + code.len());
    bytes.extend(code);
    // Versions differ in more than what they say.
    bytes.extend(format!("{version} {behaviour:?}").into_bytes());
    bytes
}

/// ELF and one segment with everything in it.
fn headers(size: usize) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let size = size as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend((LOAD_ADDRESS + HEADERS as u64).to_le_bytes());
    bytes.extend(64u64.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(5u32.to_le_bytes());
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1_0000] {
        bytes.extend(word.to_le_bytes());
    }
    assert_eq!(bytes.len(), HEADERS);
    bytes
}

/// write(1, said), exit(code).
#[cfg(target_arch = "x86_64")]
fn say(said: &str, exit: u8) -> Vec<u8> {
    let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x8d, 0x35, 19, 0, 0, 0, 0xba];
    code.extend(u32::try_from(said.len()).unwrap().to_le_bytes());
    code.extend([0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0xbf, exit, 0, 0, 0, 0x0f, 0x05]);
    code.extend(said.as_bytes());
    code
}

#[cfg(target_arch = "x86_64")]
fn spin() -> Vec<u8> {
    vec![0xeb, 0xfe]
}

/// write(1, said), exit(code).
#[cfg(target_arch = "aarch64")]
fn say(said: &str, exit: u8) -> Vec<u8> {
    let length = u32::try_from(said.len()).unwrap();
    let words: [u32; 8] = [
        0xd280_0020,
        // adr x1, seven words on
        0x1000_0000 | 7 << 5 | 1,
        0xd280_0002 | length << 5,
        0xd280_0808,
        0xd400_0001,
        0xd280_0000 | u32::from(exit) << 5,
        0xd280_0ba8,
        0xd400_0001,
    ];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(said.as_bytes());
    code
}

#[cfg(target_arch = "aarch64")]
fn spin() -> Vec<u8> {
    0x1400_0000u32.to_le_bytes().to_vec()
}
