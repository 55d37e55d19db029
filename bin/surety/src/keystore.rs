//! Keys at rest: one file per key, readable by its owner only, encrypted if a passphrase was given.
//!
//! In:     names; secret keys; passphrases.
//! Out:    the same keys again: ed25519 keys that sign, connect and vote, and secp256k1 accounts of the ledger.
//! Touches: `keys/` in the data directory.
//! Holds:  a secret key is never printed; a file that others may read is refused; a file is whole or not there; with
//!         a passphrase the file is useless without it (Argon2id, XChaCha20-Poly1305, the public key bound in).
//! Absent: the gateway's own key, which its role keeps.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use alloy_primitives::Address;
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};
use surety_client::ledger::Wallet;
use surety_types::{PublicKey, SecretKey};
use surety_worker::store::{io_hint, is_name};
use thiserror::Error;
use zeroize::Zeroizing;

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 16 << 10;
/// OWASP's second recommendation for Argon2id is 19 MiB and 2 passes; this is well above it and takes half a second.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// What a foreign file may ask of this machine, at most.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 32;

/// The keys of one data directory.
#[derive(Clone, Debug)]
pub struct Keystore {
    folder: PathBuf,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ed25519: names a worker or validator, signs its receipts or votes.
    Signing,
    /// secp256k1: holds money, bonds, pays and votes on the ledger.
    Account,
}

/// How others know a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Identity {
    /// The public half, 64 hexadecimal digits.
    Signing(PublicKey),
    /// The address, `0x` and 40 hexadecimal digits.
    Account(Address),
}

/// A key, as much of it as may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// What it is called here.
    pub name: String,
    /// How others know it.
    pub identity: Identity,
    /// Whether a passphrase protects it; otherwise only the file's mode does.
    pub encrypted: bool,
}

impl KeyEntry {
    /// The public half of a signing key.
    pub fn public(&self) -> Result<PublicKey, KeystoreError> {
        match self.identity {
            Identity::Signing(public) => Ok(public),
            Identity::Account(_) => Err(KeystoreError::NotSigning(self.name.clone())),
        }
    }
}

impl Identity {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Signing(public) => &public.0,
            Self::Account(address) => address.as_slice(),
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signing(public) => public.fmt(f),
            Self::Account(address) => address.fmt(f),
        }
    }
}

impl Serialize for KeyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_struct("KeyEntry", 3)?;
        entry.serialize_field("name", &self.name)?;
        match &self.identity {
            Identity::Signing(public) => entry.serialize_field("public", public)?,
            Identity::Account(address) => entry.serialize_field("address", &address.to_string())?,
        }
        entry.serialize_field("encrypted", &self.encrypted)?;
        entry.end()
    }
}

/// What went wrong with a key.
#[derive(Debug, Error)]
pub enum KeystoreError {
    /// The system refused something.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The name cannot be a file's.
    #[error("`{0}` cannot be a key's name")]
    Name(String),
    /// There is such a key already.
    #[error("there is a key called {0} already")]
    Exists(String),
    /// There is no such key.
    #[error("there is no key called {0}")]
    Unknown(String),
    /// The file is no key.
    #[error("{} does not hold a key", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:o})", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// It is encrypted, and no passphrase was given.
    #[error("the key {0} is protected by a passphrase")]
    Locked(String),
    /// An account where a signing key is needed.
    #[error("{0} is an account, not a key that signs receipts or votes")]
    NotSigning(String),
    /// A signing key where an account is needed.
    #[error("{0} is a signing key, not an account")]
    NotAccount(String),
    /// Not with this passphrase.
    #[error("the passphrase does not open the key {0}, or its file was changed")]
    Passphrase(String),
}

impl KeystoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { source, path, .. } => return io_hint(source, path),
            Self::Name(_) => "use letters, digits, `.`, `_` and `-`".into(),
            Self::Exists(name) => {
                format!("choose another name; keys are never overwritten (`surety key show {name}` shows it)")
            }
            Self::Unknown(_) => {
                "`surety key list` shows the keys there are; `surety key new NAME` makes one".into()
            }
            Self::Malformed { .. } => "restore the file from a copy; a lost key cannot be made again".into(),
            Self::Exposed { path, .. } => {
                format!("chmod 600 {} if nobody else has read it; otherwise make a new key", path.display())
            }
            Self::Locked(_) => "give its passphrase with --passphrase-file FILE, or at a terminal".into(),
            Self::NotSigning(_) => "`surety key list` shows which is which; name one without 0x".into(),
            Self::NotAccount(_) => {
                "`surety key list` shows which is which; `surety key new NAME --account` makes an account"
                    .into()
            }
            Self::Passphrase(_) => "try again; there is no way around a forgotten passphrase".into(),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    public: Identity,
    protection: Protection,
    /// The 32 bytes, or what they were encrypted to, in hexadecimal.
    secret: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Protection {
    /// The file's mode.
    None,
    /// XChaCha20-Poly1305 under Argon2id of a passphrase.
    Passphrase { memory_kib: u32, passes: u32, salt: Hex, nonce: Hex },
}

/// Bytes as hexadecimal in JSON, wiped when dropped.
struct Hex(Zeroizing<Vec<u8>>);

impl Keystore {
    /// The keys in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes a key.
    pub fn create(
        &self,
        name: &str,
        kind: KeyKind,
        passphrase: Option<&str>,
    ) -> Result<Identity, KeystoreError> {
        let path = self.path(name)?;
        let mut bytes = Zeroizing::new([0; 32]);
        let public = loop {
            fill(&mut *bytes);
            // Practically all bytes are an account's secret; zero, and numbers above the curve's order, are not.
            if let Some(identity) = identity(kind, &bytes) {
                break identity;
            }
        };
        let (protection, secret) = match passphrase {
            None => (Protection::None, bytes.to_vec()),
            Some(passphrase) => seal(&bytes, public.bytes(), passphrase),
        };
        let file = KeyFile { version: VERSION, public, protection, secret: Hex(Zeroizing::new(secret)) };
        let text = Zeroizing::new(serde_json::to_string(&file).expect("plain data"));
        self.write(name, &path, &text)?;
        Ok(public)
    }

    /// The signing key of this name. `passphrase` is asked only if the key is encrypted.
    pub fn load(
        &self,
        name: &str,
        passphrase: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    ) -> anyhow::Result<SecretKey> {
        self.entry(name)?.public()?;
        Ok(SecretKey::from_bytes(&*self.open(name, passphrase)?))
    }

    /// The account of this name. `passphrase` is asked only if the key is encrypted.
    pub fn load_account(
        &self,
        name: &str,
        passphrase: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    ) -> anyhow::Result<Wallet> {
        if let Identity::Signing(_) = self.entry(name)?.identity {
            return Err(KeystoreError::NotAccount(name.to_owned()).into());
        }
        Ok(Wallet::from_bytes(&*self.open(name, passphrase)?)?)
    }

    /// The signing key of this name, made without a passphrase if there is none yet.
    pub fn load_or_create(
        &self,
        name: &str,
        passphrase: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    ) -> anyhow::Result<SecretKey> {
        self.create_if_none(name, KeyKind::Signing)?;
        self.load(name, passphrase)
    }

    /// Makes a key without a passphrase if there is none of this name yet; says whether it did.
    pub fn create_if_none(&self, name: &str, kind: KeyKind) -> Result<bool, KeystoreError> {
        match self.create(name, kind, None) {
            Ok(_) => Ok(true),
            Err(KeystoreError::Exists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(
        &self,
        name: &str,
        passphrase: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    ) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        let (path, file) = self.read(name)?;
        let malformed = || KeystoreError::Malformed { path: path.clone(), source: None };
        let secret = match &file.protection {
            Protection::None => file.secret.0.clone(),
            Protection::Passphrase { memory_kib, passes, salt, nonce } => {
                let passphrase = passphrase()?.ok_or_else(|| KeystoreError::Locked(name.to_owned()))?;
                let key = derive(&passphrase, &salt.0, *memory_kib, *passes).ok_or_else(malformed)?;
                let nonce = XNonce::try_from(&nonce.0[..]).map_err(|_| malformed())?;
                let payload = Payload { msg: &file.secret.0, aad: file.public.bytes() };
                let opened = XChaCha20Poly1305::new((&*key).into()).decrypt(&nonce, payload);
                Zeroizing::new(opened.map_err(|_| KeystoreError::Passphrase(name.to_owned()))?)
            }
        };
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(&secret[..]).map_err(|_| malformed())?);
        let kind = match file.public {
            Identity::Signing(_) => KeyKind::Signing,
            Identity::Account(_) => KeyKind::Account,
        };
        if identity(kind, &bytes) != Some(file.public) {
            return Err(malformed().into());
        }
        Ok(bytes)
    }

    /// What may be shown of a key.
    pub fn entry(&self, name: &str) -> Result<KeyEntry, KeystoreError> {
        let (_, file) = self.read(name)?;
        let encrypted = !matches!(file.protection, Protection::None);
        Ok(KeyEntry { name: name.to_owned(), identity: file.public, encrypted })
    }

    /// Every key, by name.
    pub fn list(&self) -> Result<Vec<KeyEntry>, KeystoreError> {
        let folder = match fs::read_dir(&self.folder) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io("list", source)),
        };
        let mut names = Vec::new();
        for entry in folder {
            let file = entry.map_err(|source| self.io("list", source))?.file_name();
            names.extend(file.to_str().and_then(|file| file.strip_suffix(".json")).map(str::to_owned));
        }
        names.sort();
        names.iter().filter(|name| is_name(name)).map(|name| self.entry(name)).collect()
    }

    fn io(&self, attempt: &'static str, source: io::Error) -> KeystoreError {
        KeystoreError::Io { attempt, path: self.folder.clone(), source }
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        if is_name(name) {
            Ok(self.folder.join(format!("{name}.json")))
        } else {
            Err(KeystoreError::Name(name.to_owned()))
        }
    }

    fn read(&self, name: &str) -> Result<(PathBuf, KeyFile), KeystoreError> {
        let path = self.path(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeystoreError::Unknown(name.to_owned()));
            }
            Err(source) => return Err(KeystoreError::Io { attempt: "open", path, source }),
        };
        check_mode(&file, &path)?;
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(|source| KeystoreError::Io {
            attempt: "read",
            path: path.clone(),
            source,
        })?;
        let file: KeyFile = serde_json::from_slice(&text)
            .map_err(|source| KeystoreError::Malformed { path: path.clone(), source: Some(source) })?;
        if file.version != VERSION {
            return Err(KeystoreError::Malformed { path, source: None });
        }
        Ok((path, file))
    }

    /// Writes a key's file, which appears whole and is never replaced.
    fn write(&self, name: &str, path: &Path, text: &str) -> Result<(), KeystoreError> {
        fs::create_dir_all(&self.folder).map_err(|source| self.io("create", source))?;
        // Temporary files are made readable by their owner only.
        let mut file = tempfile::Builder::new()
            .prefix(".key-")
            .tempfile_in(&self.folder)
            .map_err(|source| self.io("write into", source))?;
        let written = writeln!(file, "{text}").and_then(|()| file.as_file().sync_all());
        written.map_err(|source| self.io("write into", source))?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeystoreError::Exists(name.to_owned()));
            }
            Err(error) => {
                return Err(KeystoreError::Io {
                    attempt: "create",
                    path: path.to_owned(),
                    source: error.error,
                });
            }
        }
        // The rename is whole either way; this makes it last.
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// How others will know a key of these bytes; `None` if they are no secret of that kind.
fn identity(kind: KeyKind, secret: &[u8; 32]) -> Option<Identity> {
    match kind {
        KeyKind::Signing => Some(Identity::Signing(SecretKey::from_bytes(secret).public())),
        KeyKind::Account => Wallet::from_bytes(secret).ok().map(|wallet| Identity::Account(wallet.address())),
    }
}

fn seal(secret: &[u8; 32], public: &[u8], passphrase: &str) -> (Protection, Vec<u8>) {
    let (mut salt, mut nonce) = (vec![0; 16], vec![0; 24]);
    fill(&mut salt);
    fill(&mut nonce);
    let key = derive(passphrase, &salt, MEMORY_KIB, PASSES).expect("these parameters are valid");
    let xnonce = XNonce::try_from(&nonce[..]).expect("24 bytes");
    let sealed = XChaCha20Poly1305::new((&*key).into())
        .encrypt(&xnonce, Payload { msg: secret, aad: public })
        .expect("32 bytes can be encrypted");
    let (salt, nonce) = (Hex(Zeroizing::new(salt)), Hex(Zeroizing::new(nonce)));
    (Protection::Passphrase { memory_kib: MEMORY_KIB, passes: PASSES, salt, nonce }, sealed)
}

fn derive(passphrase: &str, salt: &[u8], memory_kib: u32, passes: u32) -> Option<Zeroizing<[u8; 32]>> {
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
        return None;
    }
    let params = Params::new(memory_kib, passes, 1, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .ok()?;
    Some(key)
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has randomness");
}

#[cfg(unix)]
fn check_mode(file: &File, path: &Path) -> Result<(), KeystoreError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| KeystoreError::Io {
        attempt: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &File, _: &Path) -> Result<(), KeystoreError> {
    Ok(())
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: Zeroizing<String> =
            Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect());
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = Zeroizing::new(String::deserialize(deserializer)?);
        let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| serde::de::Error::custom("not hexadecimal"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keystore() -> (tempfile::TempDir, Keystore) {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::new(folder.path().join("keys"));
        (folder, keystore)
    }

    fn never() -> anyhow::Result<Option<Zeroizing<String>>> {
        panic!("no passphrase is needed")
    }

    fn given(passphrase: &str) -> impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>> {
        let passphrase = Zeroizing::new(passphrase.to_owned());
        move || Ok(Some(passphrase))
    }

    fn error(result: anyhow::Result<SecretKey>) -> KeystoreError {
        match result {
            Ok(key) => panic!("opened {}", key.public()),
            Err(error) => error.downcast().unwrap(),
        }
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let (_folder, keystore) = keystore();
        let identity = keystore.create("mine", KeyKind::Signing, None).unwrap();
        let public = keystore.entry("mine").unwrap().public().unwrap();
        assert_eq!(identity, Identity::Signing(public));
        assert_eq!(keystore.load("mine", never).unwrap().public(), public);
        assert_eq!(keystore.load_or_create("mine", never).unwrap().public(), public);
        assert!(matches!(keystore.create("mine", KeyKind::Account, None), Err(KeystoreError::Exists(_))));
        let entry = KeyEntry { name: "mine".into(), identity, encrypted: false };
        assert_eq!(keystore.list().unwrap(), [entry]);
        assert!(matches!(error(keystore.load("other", never)), KeystoreError::Unknown(_)));
        assert!(matches!(keystore.create("../x", KeyKind::Signing, None), Err(KeystoreError::Name(_))));
    }

    #[test]
    fn an_account_is_no_signing_key_and_the_other_way_round() {
        let (_folder, keystore) = keystore();
        let Identity::Account(address) = keystore.create("purse", KeyKind::Account, Some("x")).unwrap()
        else {
            panic!("an account has an address")
        };
        assert_eq!(keystore.load_account("purse", given("x")).unwrap().address(), address);
        assert!(matches!(error(keystore.load("purse", given("x"))), KeystoreError::NotSigning(_)));
        keystore.create("pen", KeyKind::Signing, None).unwrap();
        let refused = keystore.load_account("pen", never).unwrap_err();
        assert!(matches!(refused.downcast().unwrap(), KeystoreError::NotAccount(_)));
        let shown = serde_json::to_value(keystore.entry("purse").unwrap()).unwrap();
        assert_eq!(shown["address"], address.to_string());
        assert!(!keystore.create_if_none("pen", KeyKind::Signing).unwrap());
    }

    #[test]
    fn a_passphrase_opens_only_its_own_key() {
        let (_folder, keystore) = keystore();
        let identity = keystore.create("safe", KeyKind::Signing, Some("correct horse")).unwrap();
        let opened = keystore.load("safe", given("correct horse")).unwrap();
        assert_eq!(Identity::Signing(opened.public()), identity);
        assert!(matches!(error(keystore.load("safe", given("wrong horse"))), KeystoreError::Passphrase(_)));
        assert!(matches!(error(keystore.load("safe", || Ok(None))), KeystoreError::Locked(_)));
        assert!(keystore.entry("safe").unwrap().encrypted);
    }

    #[test]
    fn a_changed_file_is_refused() {
        let (_folder, keystore) = keystore();
        keystore.create("a", KeyKind::Signing, Some("x")).unwrap();
        keystore.create("b", KeyKind::Signing, None).unwrap();
        let path = keystore.path("a").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let other = keystore.entry("b").unwrap().identity.to_string();
        let public = keystore.entry("a").unwrap().identity.to_string();
        for (from, to) in [
            (public.as_str(), other.as_str()),
            ("\"memory_kib\":65536", "\"memory_kib\":4294967295"),
            ("\"version\":1", "\"version\":2"),
            ("\"passes\":3", "\"passes\":3,\"more\":1"),
            ("{", ""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            fs::write(&path, changed).unwrap();
            let error = error(keystore.load("a", given("x")));
            assert!(
                matches!(error, KeystoreError::Passphrase(_) | KeystoreError::Malformed { .. }),
                "{from} → {to}: {error}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_a_key() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, keystore) = keystore();
        keystore.create("mine", KeyKind::Signing, None).unwrap();
        let path = keystore.path("mine").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(error(keystore.load("mine", never)), KeystoreError::Exposed { mode: 0o644, .. }));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_a_key_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<KeyFile>(&bytes);
        }
    }
}
