//! The reasons of conditions and Events: what each means, what it asks of people and what they do about it.
//! `docs/operations.md` lists them from here, and a status is `Stalled` because of what is said here.

use std::fmt;

/// What a reason asks of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It asks nothing of anybody.
    Fine,
    /// It passes by itself, or when something else does.
    Passing,
    /// Everything works; somebody should know all the same.
    Notice,
    /// It works, but less well than it should.
    Degraded,
    /// Only a person can help.
    Person,
    /// Only a person can help as soon as the server does not retry by itself any more.
    PersonOnceGivenUp,
}

/// Where a reason is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Conditions of an `OpenClawInstance`.
    Instance,
    /// Conditions of a `HostingPool`.
    Pool,
    /// Conditions of an `OpenClawRelease`.
    Release,
    /// An Event of an instance, and no condition.
    EventOfInstance,
    /// An Event of a pool, and no condition.
    EventOfPool,
    /// An Event of a Secret, and no condition.
    EventOfSecret,
}

impl Place {
    /// As the documentation names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Pool => "pool",
            Self::Release => "release",
            Self::EventOfInstance => "Event of an instance",
            Self::EventOfPool => "Event of a pool",
            Self::EventOfSecret => "Event of a Secret",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident: $severity:ident on [$($place:ident),+], $remedy:literal;)+) => {
        /// Why a condition is as it is, or what an Event tells, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in conditions and Events.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it asks of people.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// What it means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+),)+
                }
            }

            /// What a person does about it.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }

            /// Where it is found.
            pub const fn places(self) -> &'static [Place] {
                match self {
                    $(Self::$name => &[$(Place::$place),+],)+
                }
            }
        }
    };
}

reasons! {
    /// All is as the spec says.
    Ready: Fine on [Instance, Pool, Release], "Nothing.";
    /// Work is under way.
    Progressing: Passing on [Instance, Pool], "Nothing: wait. The message says for what.";
    /// Not looked at yet: something that comes before it is missing.
    Waiting: Passing on [Instance], "Look at the condition that comes before it.";
    /// `spec.suspend` is true.
    Suspended: Passing on [Instance], "`kubectl -n NS patch oci NAME --type=merge -p '{\"spec\":{\"suspend\":false}}'`. A suspended instance is not deleted, unless nothing was ever made for it.";
    /// Being deleted.
    Deleting: Passing on [Instance, Pool, Release], "Nothing: wait until the clouds confirm that all is gone.";
    /// A field of the object in etcd cannot be read, such as an invalid name.
    Malformed: Person on [Instance, Pool, Release], "Correct the field that the message names, or delete the object; usually an older CRD let it in.";
    /// The object is so large that etcd takes no status with it, so nothing is done.
    ObjectTooLarge: Notice on [EventOfInstance], "Make `spec.config`, the sealed values or the annotations shorter. Sealed values can go into a Secret.";
    /// A field of the spec is invalid.
    InvalidSpec: Person on [Instance, Pool], "Correct the field that the message names.";
    /// `spec.config` sets a key that is Moorage's.
    ReservedConfigKey: Person on [Instance], "Remove the key from `spec.config`: Moorage sets it.";
    /// `spec.config` holds what looks like a literal key.
    LiteralSecret: Person on [Instance], "Remove the value at that path, revoke the key, and give the new one under `spec.credentials`.";
    /// `spec.config` refers to a key that the server does not have: `${VARIABLE}`, a `SecretRef`, a
    /// placeholder, or a `credentialRef` that names no credential or stands where OpenClaw takes none.
    KeyReference: Person on [Instance], "Give the key under `spec.credentials` and write `{credentialRef: NAME}` at that path, or remove it. Nothing has to be revoked.";
    /// Two credentials belong at one place of `spec.config`, for example two Telegram bots.
    ContestedPlace: Person on [Instance], "Keep one of them, or write `{credentialRef: NAME}` in `spec.config` where each of the others belongs.";
    /// OpenClaw rejects the configuration.
    ConfigRejected: Person on [Instance], "Correct each path that the message names. OpenClaw still runs with the last good configuration.";
    /// A configuration, or an update of OpenClaw, cloudflared or the agent, did not work, and the last
    /// good state is back. The message says which and why.
    RolledBack: Person on [Instance], "Correct what the last change broke or use a release with another version, or annotate `moorage.dev/retry` with any new value.";
    /// A program of the release cannot be fetched, or is not what was pinned. What was running keeps
    /// running.
    ArtifactFailed: PersonOnceGivenUp on [Instance], "See that the server at the URL in the message answers and serves the pinned file, or use another release. The server tries again by itself; at once when you annotate `moorage.dev/retry`.";
    /// An integration cannot be installed, or its package is not the pinned one.
    IntegrationFailed: PersonOnceGivenUp on [Instance], "Take it out of `spec.integrations`, or use a release that approves another version; one with `allowUnpinned`: see that its registry answers and has that version with that integrity. The server tries again by itself; at once when you annotate `moorage.dev/retry`.";
    /// It works, but a pairing that the spec approves did not come about: no device waits with that id,
    /// or OpenClaw refused it.
    PairingFailed: Notice on [Instance], "Have the device connect again and approve the id that it shows then, and take the old one out of `spec.access.approvedPairings`. Ids are looked for once for each change of the spec, and when you annotate `moorage.dev/retry`.";
    /// OpenClaw runs with the configuration, but says that it is not ready, for example because of a
    /// channel.
    OpenClawNotReady: Degraded on [Instance], "Look at the dashboard, and at OpenClaw's log on the server.";
    /// OpenClaw or cloudflared still uses a secret that was replaced.
    OldSecretsInUse: Degraded on [Instance], "Look at the dashboard; the message says what does not take up its new secret and why.";
    /// OpenClaw finds its configuration insecure: critical findings of `openclaw security audit`, seen
    /// within five minutes. An audit that fails is repeated, after 30 s at first and at last every 15
    /// min.
    InsecureConfig: Degraded on [Instance], "Correct `spec.config`.";
    /// The packages are not set up ten minutes after the server was made: nftables, fail2ban and
    /// unattended-upgrades may be missing, and what was to be removed may still be there.
    SetupIncomplete: Degraded on [Instance], "Check that it reaches Debian's mirrors (HTTP). Over the SSH fallback `journalctl -u moorage-setup` says what fails. It is retried at least once a minute.";
    /// The server's clock is more than five minutes off.
    ClockSkewed: Degraded on [Instance], "Check that the server reaches a time server (NTP, UDP 123).";
    /// The disk is short of space: less than 10 % or 1 GiB free.
    DiskPressure: Degraded on [Instance], "Remove data that is not needed.";
    /// Memory is short: less than 10 % available.
    MemoryPressure: Degraded on [Instance], "Ask less of OpenClaw, or rebuild with a larger server type (a rebuild deletes the server's data).";
    /// Hetzner does not have one of the server types or locations that the pool names. The others are
    /// used.
    NotOffered: Degraded on [Pool], "Correct the name in the message.";
    /// The pool does not exist.
    PoolNotFound: Passing on [Instance], "Create the pool, or delete the instance and name another.";
    /// The pool is not ready, or takes no new instances. Instances that are already `Ready` stay so.
    PoolNotReady: Passing on [Instance], "`kubectl describe hpool NAME`, and fix that first.";
    /// The pool is full. What no instance has takes a place as well (a server, a tunnel or DNS records;
    /// together they are one place): see [Orphans](#orphans) and [Retained](#retained).
    PoolFull: Person on [Instance], "Raise `spec.capacity` of the pool, or use another.";
    /// The namespace has as many instances in the pool as it may have. What no instance has takes a place
    /// as well (a server, a tunnel or DNS records; together they are one place): the message says how many.
    NamespaceQuotaExceeded: Person on [Instance], "Delete one, or raise `spec.maxInstancesPerNamespace` of the pool. To stop counting a retained server, with its tunnel and records, remove its label `moorage.dev/pool`; without a server, delete the retained tunnel and records. If an instance was removed by force, apply it again and delete it normally: everything of it is deleted.";
    /// In the last hour as many servers were begun for the namespace as its quota and as much again (at
    /// least 5 more). A server is begun with its tunnel, whether there is one in stock or not; each that
    /// is made is billed for an hour.
    ServerRateExceeded: Passing on [Instance], "Nothing: Moorage retries automatically. Find out what deletes and recreates instances.";
    /// The pool does not take instances of this namespace.
    NamespaceNotAllowed: Person on [Instance], "Add the namespace to `spec.allowedNamespaces` of the pool.";
    /// The release does not exist.
    ReleaseNotFound: Passing on [Instance], "Create the release, or correct `spec.release` or the pool's `defaultRelease`.";
    /// The pool does not allow the release.
    ReleaseNotAllowed: Person on [Instance], "Name one of those in the message, or add it to `spec.allowedReleases` of the pool.";
    /// The release does not approve the integration.
    IntegrationNotApproved: Person on [Instance], "Use a release that approves it.";
    /// The release does not pin all of an integration (it was made before integrations were pinned), so
    /// no server is made that would have to resolve it, and no server installs it again. Servers that
    /// have it keep it.
    IntegrationNotPinned: Person on [Instance], "Use a release with its artifact (`moorage release build`), or take it out of `spec.integrations`.";
    /// The host name is reserved by the pool.
    HostnameReserved: Person on [Instance], "Use another host name in a new instance.";
    /// Another instance has the host name: it was granted first, or is older.
    HostnameTaken: Person on [Instance], "Use another host name in a new instance, or delete the older one.";
    /// A DNS record with this name exists and does not belong to this instance. The message says who owns
    /// it: another instance, another installation (such as this cluster before it was lost), or nobody
    /// that Moorage knows.
    ForeignDnsRecord: Person on [Instance], "Of a lost cluster: restore its Secret `moorage-master-key`, and the instance finds its server again. Else remove the record if nobody needs it, or use another host name; Moorage never touches it.";
    /// A server that is not this instance's has the name; the message says whose.
    ForeignServer: Person on [Instance], "Of a lost cluster: restore its Secret `moorage-master-key`. Else rename the server, or delete it if nobody needs it; Moorage never touches it.";
    /// An instance that was deleted with `deletionPolicy: Retain` left behind what has the name.
    Retained: Person on [Instance], "Remove the DNS record, or rename the server, when they are no longer needed; or use another host name.";
    /// A second server has the labels of this instance's server, such as a snapshot that was restored
    /// with them. It may hold the same keys and take part in the tunnel. A deletion removes everything
    /// else and waits.
    DuplicateServer: Person on [Instance], "If it is a copy: delete it in Hetzner's console, or remove its label `moorage.dev/instance`.";
    /// The instance was created before ids were computed from namespace and name, and keeps its earlier
    /// one (`status.earlierIdentity`) until it is deleted.
    IdentityMigrated: Fine on [EventOfInstance], "Nothing.";
    /// Something in its clouds belongs to no instance or pool.
    OrphansFound: Notice on [EventOfPool], "See [Orphans](#orphans).";
    /// An orphan was deleted, as `spec.orphanPolicy: Delete` says.
    OrphanDeleted: Fine on [EventOfPool], "Nothing.";
    /// The server is protected from deletion at Hetzner.
    DeleteProtected: Person on [Instance, Pool], "Switch the protection off in Hetzner's console; the deletion continues within a minute.";
    /// Another Access application protects the management host names of the zone: that of another pool, which
    /// has the zone, or one of a lost cluster.
    ZoneTaken: Person on [Pool], "Give each pool a zone of its own. Of a lost cluster: `moorage cleanup` removes it. Else delete the application that the message names in Zero Trust, if nobody needs it; it is looked at again every few minutes.";
    /// The Secret of a token is missing.
    TokenSecretMissing: Person on [Pool], "Create the Secret that the message names, in the operator's namespace.";
    /// A cloud refuses the token.
    Unauthorized: Person on [Instance, Pool], "Put a valid token into the pool's Secret.";
    /// The token may not do this.
    Forbidden: Person on [Instance, Pool], "Give the token the permission that the message names.";
    /// The Cloudflare account has no Zero Trust organization, so that it has no Access.
    ZeroTrustNotEnabled: Person on [Instance, Pool], "Open Zero Trust in Cloudflare's dashboard once and choose a team name; the free plan is enough. It is looked at again every few minutes.";
    /// Cloudflare does not answer for the zone, or does not pass its visitors through its edge: it is
    /// pending, paused, or not set up in full. New servers could not be reached.
    ZoneNotActive: Person on [Pool], "Do what the message says, in Cloudflare's dashboard or at the registrar. It is looked at again every few minutes.";
    /// The account's quota is used up.
    QuotaExceeded: Passing on [Instance, Pool], "Ask the provider for a higher limit, or delete something.";
    /// No server type is in stock in any location.
    OutOfStock: Passing on [Instance, Pool], "Wait, or add server types or locations to the pool.";
    /// A cloud or our own budget says to wait.
    RateLimited: Passing on [Instance, Pool], "Nothing: Moorage retries automatically. If it happens often, look for other users of the token.";
    /// A cloud refuses what we sent, or offers none of the server types and locations.
    CloudRejected: Person on [Instance, Pool], "Correct what the message says; a corrected pool is acted upon at once.";
    /// Hetzner has the object locked: another action runs on it, such as a backup, a snapshot or a migration.
    Locked: Passing on [Instance, Pool], "Nothing: Moorage retries automatically. If it lasts, look at the object's actions in Hetzner's console; Hetzner also locks servers after a complaint, and writes a mail then.";
    /// The agent does not answer, and the server has Hetzner's rescue system enabled: it may run that
    /// instead of its own system.
    RescueEnabled: Person on [Instance], "Disable the rescue system of the server in Hetzner's console, and reset the server.";
    /// A cloud does not answer, or with an error of its own.
    CloudUnavailable: Passing on [Instance, Pool], "Nothing: Moorage retries automatically. Look at the provider's status page.";
    /// A cloud's object is not as it was a moment ago: it is gone, exists already, or was changed at
    /// the same time.
    CloudConflict: Passing on [Instance, Pool], "Nothing: Moorage observes again and retries. If it lasts, see the operator's log.";
    /// The pool's firewall is gone: the token is of another project.
    ProjectChanged: Person on [Pool], "Put the token of the right project back. If the firewall was deleted by hand, the message says how to confirm that.";
    /// Somebody deleted the tunnel; its server cannot be given a new one.
    TunnelLost: Person on [Instance], "Save what you need over the pool's SSH fallback, then annotate `moorage.dev/rebuild=SERVER-ID`: the server is replaced, all its data is lost, and its keys have to be sealed again.";
    /// Many servers vanished at once.
    MassDisappearance: Person on [Instance], "Find out why. Nothing is recreated until you annotate the pool as the message says.";
    /// The server's type or location is not one that the spec and the pool allow. Changes of `ipv4`,
    /// `image` and `ssh` are not compared: they apply to new servers only.
    ServerMismatch: Notice on [Instance], "Nothing, or annotate the instance `moorage.dev/rebuild: <server id>`: all data on the server is lost, and its keys have to be sealed again.";
    /// The annotation `moorage.dev/rebuild` is no server id, so nothing is replaced.
    InvalidAnnotation: Notice on [Instance], "Correct the annotation as the message says, or remove it.";
    /// The server replaced another one less than ten minutes ago, and the annotation asks for the next.
    RebuildTooSoon: Passing on [Instance], "Nothing: the message says when it is replaced. Remove the annotation if you do not want that.";
    /// The release is for another processor than the server's, or than those of all server types that
    /// the instance may use. An existing server keeps running as it was, and gets everything but the
    /// programs and the configuration.
    ArchitectureMismatch: Person on [Instance], "Name a release for the right architecture, add a server type to the pool, or replace the server as the message says; all its data is lost.";
    /// The server is gone; keys have to be sealed again.
    RedeliveryRequired: Person on [Instance], "Seal the keys that the message names again, and apply them.";
    /// The server is off.
    ServerOff: Person on [Instance], "Power it on at the provider, or find out who turned it off.";
    /// A new server is still off or being made long after it was ordered. It is powered on if it is off. If
    /// it has not run 15 minutes after it was made, it is deleted, and another one is made, of the next
    /// server type and location.
    ServerNotStarted: Passing on [Instance], "Nothing: wait. The message says what Hetzner told of it; Hetzner's status page may say more.";
    /// Several servers in a row never ran, so no further one is made.
    ServersNeverStart: Person on [Instance], "Look at Hetzner's status page, and add server types or locations to the pool. Then annotate `moorage.dev/rebuild=SERVER-ID`: the server is replaced. It has never run, so nothing is lost.";
    /// The agent does not answer.
    AgentUnreachable: Passing on [Instance], "Check that the server runs (Hetzner) and that its tunnel is healthy (Cloudflare, Zero Trust, Tunnels). Over the pool's SSH fallback, if it has one: `journalctl -u moorage-agent -u cloudflared`. If Cloudflare Access refuses the operator, annotate the pool with a new value of `moorage.dev/reconcile-at`: its Access objects are checked and repaired.";
    /// The server was made more than five minutes ago and its agent has never answered.
    AgentNeverAnswered: Passing on [Instance], "The message says how far calls come. Open the server's console in Hetzner's web console and look at how the first boot ended: an artifact's URL that does not answer, no DNS, no way out. It is asked ever more seldom, at last every five minutes; at once when you annotate `moorage.dev/reconcile-at`.";
    /// Cloudflare's bot protection or WAF stops the operator's calls to the management host name.
    EdgeChallenge: Person on [Instance], "Switch Bot Fight Mode off for the zone, which no rule can skip; or let the rule of the WAF skip host names that end in `-mgmt`.";
    /// Something other than this server's agent answered.
    EnrolmentRefused: Passing on [Instance], "Do not ignore it: this may be an attack. If nobody is changing the tunnel right now, check the tunnel and its routes in Cloudflare, then replace the server: annotate `moorage.dev/rebuild=SERVER-ID`; all its data is lost.";
    /// The master key is missing.
    MasterKeyMissing: Person on [Instance], "Restore it as under [Backup](#backup), with its `installation-id`; after a rotation under the name of the newest key. The operator retries by itself, within a minute. If the log then says that sealing keys cannot be used, the key is the wrong one. Lost for good: see [below](#a-lost-cluster-or-a-lost-master-key).";
    /// The server was made under another master key.
    MasterKeyChanged: Person on [Instance], "Restore the old master key from your backup. If it is lost, replace the servers that the message names; all their data is lost.";
    /// A ciphertext that was consumed comes back again and again.
    RecreatedBySource: Notice on [Instance], "Remove the Secret from Git (or whatever applies it): its values are delivered.";
    /// A Secret holds a key that no credential names.
    UnusedKey: Person on [Instance], "Name the key in `spec.credentials`, or remove it from the Secret.";
    /// The dashboard's Secret exists and is not ours. Of a pool: Secret `moorage-access-POOL` in the
    /// operator's namespace is not its own.
    ForeignSecret: Person on [Instance, Pool], "Choose another `dashboardSecretName`, or delete that Secret. A pool: delete or rename that Secret.";
    /// All credentials are stored.
    Delivered: Fine on [Instance], "Nothing.";
    /// The agent refuses the value.
    AgentRefused: Person on [Instance], "Seal a value of the right format; the message says what the agent expects.";
    /// The agent refuses a call of the operator. The message says why.
    CallRefused: Passing on [Instance], "Nothing: Moorage retries automatically. If it lasts, see the operator's log.";
    /// The Secret that a credential names does not exist, and nothing was delivered before.
    SecretNotFound: Person on [Instance], "Seal the value and apply the Secret.";
    /// The Secret lacks the label `moorage.dev/instance`, or has another instance's.
    SecretNotBound: Person on [Instance], "Label it for its one instance.";
    /// The Secret is not of type `moorage.dev/sealed-credentials`.
    WrongSecretType: Person on [Instance], "Delete it and apply one that `moorage seal` made: a type cannot be changed.";
    /// The Secret has a cluster-wide or namespace-wide scope.
    UnsupportedScope: Person on [Instance], "Seal with the strict scope.";
    /// The Secret has no such key.
    KeyMissing: Person on [Instance], "Add the key, or correct `secretRef.key`.";
    /// The value is not sealed. It may be a key in the clear.
    NotSealed: Person on [Instance], "Revoke the key at its provider, make a new one, and seal that.";
    /// The value is sealed, but base64-encoded once too often, or is a whole `SealedSecret`.
    NotOneEnvelope: Person on [Instance], "Put the one sealed value there as it is, under `stringData`.";
    /// The sealed value is larger than any credential.
    ValueTooLarge: Person on [Instance], "Seal the key alone.";
    /// Sealed for another namespace or name, or with another cluster's certificate.
    CannotUnseal: Person on [Instance], "Seal again with the pool's certificate, for exactly this Secret.";
    /// Sealed with a key that has been destroyed since.
    KeyExpired: Person on [Instance], "Seal again with the current certificate.";
    /// The value opens but is not a key of its type.
    InvalidFormat: Person on [Instance], "Seal the right value; the message says what it looks like.";
    /// The type of a credential is not known.
    UnknownType: Person on [Instance], "Use one of the types that the message lists.";
    /// The name of a credential is not allowed.
    InvalidName: Person on [Instance], "Rename the entry that the message counts.";
    /// Two credentials have one name.
    DuplicateName: Person on [Instance], "Give each its own.";
    /// A credential has both or neither of `secretRef` and `sealed`.
    AmbiguousSource: Person on [Instance], "Give exactly one.";
    /// The value could not be sealed to the server.
    SealingFailed: Passing on [Instance], "Nothing: it is tried again.";
    /// A sealed Secret has been waiting for its instance for 15 minutes (`moorage_waiting_secrets`
    /// counts them).
    InstanceMissing: Notice on [EventOfSecret], "List them: `kubectl get secrets -A --field-selector type=moorage.dev/sealed-credentials -L moorage.dev/instance`, and compare with `kubectl get oci -A`. Create the instance that the label names, correct the label, or delete the Secret. Moorage does not delete it while it waits; once its instance has existed and is deleted, the Secret is deleted too.";
}

impl Reason {
    /// The one of this name, if this version knows it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Whether only a person can help. `given_up` tells that the server does not retry by itself.
    pub fn needs_a_person(self, given_up: bool) -> bool {
        match self.severity() {
            Severity::Person => true,
            Severity::PersonOnceGivenUp => given_up,
            Severity::Fine | Severity::Passing | Severity::Notice | Severity::Degraded => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, other: &Reason) -> bool {
        self == other.as_str()
    }
}
