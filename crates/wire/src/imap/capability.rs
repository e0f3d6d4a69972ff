//! What a server can do.

/// Most capability names that are kept.
const MAX_ATOMS: usize = 256;
/// Longest capability name that is kept, in octets.
const MAX_ATOM: usize = 128;

/// A server's capabilities (RFC 9051 §7.2.2). They may differ before and after signing in; ask again after it.
///
/// What another capability contains is set with it: IMAP4rev2 what RFC 9051 Appendix E takes in, QRESYNC contains
/// CONDSTORE, and LITERAL+ contains LITERAL-.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// IMAP4rev1 (RFC 3501).
    pub imap4_rev1: bool,
    /// IMAP4rev2 (RFC 9051); where rev1 is there too it must be enabled.
    pub imap4_rev2: bool,
    /// Mechanisms of `AUTH=`, in upper case.
    pub mechanisms: Vec<String>,
    /// SASL-IR (RFC 4959): AUTHENTICATE may carry the initial response.
    pub sasl_ir: bool,
    /// LOGINDISABLED: LOGIN is refused.
    pub login_disabled: bool,
    /// STARTTLS may be asked for.
    pub start_tls: bool,
    /// NAMESPACE (RFC 2342).
    pub namespace: bool,
    /// LIST-EXTENDED (RFC 5258).
    pub list_extended: bool,
    /// LIST-STATUS (RFC 5819).
    pub list_status: bool,
    /// SPECIAL-USE (RFC 6154).
    pub special_use: bool,
    /// CREATE-SPECIAL-USE (RFC 6154).
    pub create_special_use: bool,
    /// UIDPLUS (RFC 4315).
    pub uid_plus: bool,
    /// MULTIAPPEND (RFC 3502).
    pub multi_append: bool,
    /// LITERAL+ (RFC 7888): no literal needs to wait.
    pub literal_plus: bool,
    /// LITERAL- (RFC 7888): literals of up to 4096 octets need not wait.
    pub literal_minus: bool,
    /// BINARY (RFC 3516): literal8 in APPEND.
    pub binary: bool,
    /// CONDSTORE (RFC 7162).
    pub condstore: bool,
    /// QRESYNC (RFC 7162).
    pub qresync: bool,
    /// ESEARCH (RFC 4731).
    pub esearch: bool,
    /// OBJECTID (RFC 8474).
    pub object_id: bool,
    /// MOVE (RFC 6851).
    pub moves: bool,
    /// APPENDLIMIT (RFC 7889) is known; the limit may differ by folder and is then in STATUS.
    pub append_limit_known: bool,
    /// `APPENDLIMIT=n`: the largest message in octets, for all folders.
    pub append_limit: Option<u64>,
    /// QUOTA (RFC 2087, RFC 9208).
    pub quota: bool,
    /// ACL (RFC 4314).
    pub acl: bool,
    /// METADATA (RFC 5464), on folders and server.
    pub metadata: bool,
    /// METADATA-SERVER (RFC 5464), on the server only.
    pub metadata_server: bool,
    /// COMPRESS=DEFLATE (RFC 4978).
    pub compress_deflate: bool,
    /// ENABLE (RFC 5161).
    pub enable: bool,
    /// UTF8=ACCEPT or UTF8=ONLY (RFC 6855).
    pub utf8_accept: bool,
    /// ID (RFC 2971).
    pub id: bool,
    /// UNSELECT (RFC 3691).
    pub unselect: bool,
    /// STATUS=SIZE (RFC 8438).
    pub status_size: bool,
    /// CHILDREN (RFC 3348).
    pub children: bool,
    /// IDLE (RFC 2177).
    pub idle: bool,
    /// UNAUTHENTICATE (RFC 8437).
    pub unauthenticate: bool,
    /// X-GM-EXT-1 (Gmail).
    pub gmail: bool,
    /// All names as the server spelt them, at most 256 of at most 128 octets; for the log and for quirks.
    pub names: Vec<String>,
}

impl Capabilities {
    /// Reads the server's words.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut capabilities = Self::default();
        for name in names {
            if name.is_empty() || name.len() > MAX_ATOM || capabilities.names.len() >= MAX_ATOMS {
                continue;
            }
            capabilities.take(&name.to_ascii_uppercase());
            capabilities.names.push(name.to_owned());
        }
        capabilities
    }

    /// Whether the server named this capability, without regard to case and without what others contain.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|held| held.eq_ignore_ascii_case(name))
    }

    /// Whether AUTHENTICATE knows the mechanism.
    pub fn has_mechanism(&self, name: &str) -> bool {
        self.mechanisms.iter().any(|held| held.eq_ignore_ascii_case(name))
    }

    fn take(&mut self, name: &str) {
        if let Some(mechanism) = name.strip_prefix("AUTH=") {
            if !self.has_mechanism(mechanism) {
                self.mechanisms.push(mechanism.to_owned());
            }
            return;
        }
        if let Some(limit) = name.strip_prefix("APPENDLIMIT=") {
            self.append_limit_known = true;
            self.append_limit = limit.parse().ok();
            return;
        }
        match name {
            "IMAP4REV1" => self.imap4_rev1 = true,
            "IMAP4REV2" => self.take_rev2(),
            "SASL-IR" => self.sasl_ir = true,
            "LOGINDISABLED" => self.login_disabled = true,
            "STARTTLS" => self.start_tls = true,
            "NAMESPACE" => self.namespace = true,
            "LIST-EXTENDED" => self.list_extended = true,
            "LIST-STATUS" => self.list_status = true,
            "SPECIAL-USE" => self.special_use = true,
            "CREATE-SPECIAL-USE" => self.create_special_use = true,
            "UIDPLUS" => self.uid_plus = true,
            "MULTIAPPEND" => self.multi_append = true,
            "LITERAL+" => (self.literal_plus, self.literal_minus) = (true, true),
            "LITERAL-" => self.literal_minus = true,
            "BINARY" => self.binary = true,
            "CONDSTORE" => self.condstore = true,
            "QRESYNC" => (self.qresync, self.condstore) = (true, true),
            "ESEARCH" => self.esearch = true,
            "OBJECTID" => self.object_id = true,
            "MOVE" => self.moves = true,
            "APPENDLIMIT" => self.append_limit_known = true,
            "QUOTA" => self.quota = true,
            "ACL" => self.acl = true,
            "METADATA" => (self.metadata, self.metadata_server) = (true, true),
            "METADATA-SERVER" => self.metadata_server = true,
            "COMPRESS=DEFLATE" => self.compress_deflate = true,
            "ENABLE" => self.enable = true,
            "UTF8=ACCEPT" | "UTF8=ONLY" => self.utf8_accept = true,
            "ID" => self.id = true,
            "UNSELECT" => self.unselect = true,
            "STATUS=SIZE" => self.status_size = true,
            "CHILDREN" => self.children = true,
            "IDLE" => self.idle = true,
            "UNAUTHENTICATE" => self.unauthenticate = true,
            "X-GM-EXT-1" => self.gmail = true,
            _ => {}
        }
    }

    /// RFC 9051 Appendix E. Of BINARY it takes in only fetching, of SPECIAL-USE only the attributes in LIST.
    fn take_rev2(&mut self) {
        self.imap4_rev2 = true;
        self.sasl_ir = true;
        self.namespace = true;
        self.list_extended = true;
        self.list_status = true;
        self.uid_plus = true;
        self.literal_minus = true;
        self.esearch = true;
        self.moves = true;
        self.enable = true;
        self.unselect = true;
        self.status_size = true;
        self.children = true;
        self.idle = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_facts() {
        let capabilities = Capabilities::from_names(
            "imap4rev1 AUTH=PLAIN auth=plain AUTH=scram-sha-256 APPENDLIMIT=35651584 QRESYNC Literal+ X-NEW".split(' '),
        );
        assert!(capabilities.imap4_rev1 && !capabilities.imap4_rev2);
        assert_eq!(capabilities.mechanisms, ["PLAIN", "SCRAM-SHA-256"]);
        assert!(capabilities.has_mechanism("scram-sha-256") && !capabilities.has_mechanism("LOGIN"));
        assert_eq!(capabilities.append_limit, Some(35_651_584));
        assert!(capabilities.append_limit_known && capabilities.condstore && capabilities.qresync);
        assert!(capabilities.literal_plus && capabilities.literal_minus);
        assert!(capabilities.has("x-new") && !capabilities.has("condstore"));

        let unlimited = Capabilities::from_names(["APPENDLIMIT"]);
        assert!(unlimited.append_limit_known && unlimited.append_limit.is_none());
    }

    #[test]
    fn rev2_contains_its_extensions() {
        let capabilities = Capabilities::from_names(["IMAP4rev2"]);
        assert!(capabilities.uid_plus && capabilities.esearch && capabilities.moves && capabilities.literal_minus);
        assert!(!capabilities.binary && !capabilities.literal_plus && !capabilities.condstore);
        assert!(!capabilities.multi_append && !capabilities.special_use);
    }

    #[test]
    fn no_number_of_names_is_too_many() {
        let many: Vec<String> = (0..100_000).map(|number| format!("AUTH=X{number}")).collect();
        let capabilities = Capabilities::from_names(many.iter().map(String::as_str));
        assert_eq!(capabilities.names.len(), MAX_ATOMS);
        assert!(capabilities.mechanisms.len() <= MAX_ATOMS);
        let long = "X".repeat(MAX_ATOM + 1);
        assert!(Capabilities::from_names([long.as_str()]).names.is_empty());
    }
}
