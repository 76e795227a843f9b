//! The payloads of a message, by what they are.

use crate::wire::{
    AuthData, CertRequest, Certificate, Delete, Identification, KeyExchange, Notify, Payload, Proposal,
    TrafficSelector, notify,
};

/// Of what may stand in a message once the first is taken; the rest as it came.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub sa: Option<Vec<Proposal>>,
    pub ke: Option<KeyExchange>,
    pub nonce: Option<Vec<u8>>,
    pub id_i: Option<Identification>,
    pub id_r: Option<Identification>,
    pub auth: Option<AuthData>,
    pub ts_i: Option<Vec<TrafficSelector>>,
    pub ts_r: Option<Vec<TrafficSelector>>,
    pub certificates: Vec<Certificate>,
    pub requests: Vec<CertRequest>,
    pub notifies: Vec<Notify>,
    pub deletes: Vec<Delete>,
    pub vendors: Vec<Vec<u8>>,
}

impl Parts {
    /// Of a message.
    pub fn new(payloads: Vec<Payload>) -> Parts {
        let mut parts = Parts::default();
        for payload in payloads {
            match payload {
                Payload::Sa(x) => first(&mut parts.sa, x),
                Payload::Ke(x) => first(&mut parts.ke, x),
                Payload::Nonce(x) => first(&mut parts.nonce, x),
                Payload::IdI(x) => first(&mut parts.id_i, x),
                Payload::IdR(x) => first(&mut parts.id_r, x),
                Payload::Auth(x) => first(&mut parts.auth, x),
                Payload::TsI(x) => first(&mut parts.ts_i, x),
                Payload::TsR(x) => first(&mut parts.ts_r, x),
                Payload::Cert(x) => parts.certificates.push(x),
                Payload::CertReq(x) => parts.requests.push(x),
                Payload::Notify(x) => parts.notifies.push(x),
                Payload::Delete(x) => parts.deletes.push(x),
                Payload::VendorId(x) => parts.vendors.push(x),
                Payload::Configuration(_) | Payload::Eap(_) | Payload::Unknown { .. } => {}
            }
        }
        parts
    }

    /// The first notification of a kind.
    pub fn notify(&self, kind: u16) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.kind == kind)
    }

    /// Whether there is a notification of a kind.
    pub fn has(&self, kind: u16) -> bool {
        self.notify(kind).is_some()
    }

    /// The first notification that tells of an error.
    pub fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.is_error())
    }
}

fn first<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// A notification without data about the exchange itself.
pub(crate) fn error_payload(kind: u16) -> Payload {
    Payload::Notify(Notify::new(kind, []))
}

/// An error as operators find it in RFCs and other logs.
pub(crate) fn error_name(kind: u16) -> String {
    match kind {
        notify::UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
        notify::INVALID_IKE_SPI => "INVALID_IKE_SPI",
        notify::INVALID_MAJOR_VERSION => "INVALID_MAJOR_VERSION",
        notify::INVALID_SYNTAX => "INVALID_SYNTAX",
        notify::INVALID_MESSAGE_ID => "INVALID_MESSAGE_ID",
        notify::INVALID_SPI => "INVALID_SPI",
        notify::NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
        notify::INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
        notify::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        notify::SINGLE_PAIR_REQUIRED => "SINGLE_PAIR_REQUIRED",
        notify::NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
        notify::INTERNAL_ADDRESS_FAILURE => "INTERNAL_ADDRESS_FAILURE",
        notify::FAILED_CP_REQUIRED => "FAILED_CP_REQUIRED",
        notify::TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
        notify::INVALID_SELECTORS => "INVALID_SELECTORS",
        notify::TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
        notify::CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
        other => return format!("error {other}"),
    }
    .to_owned()
}
