//! What is offered for an SA, and which of it is chosen (RFC 7296 2.7 and 3.3).
//!
//! Chosen is the peer's first proposal of which we can have one transform of each type, and among those of a type the
//! one that we like best. A proposal with a type of transform that is not understood is passed over; so is, within a
//! type, a transform that is not understood or has an attribute that is not (RFC 7296 3.3.6).

mod algorithm;
mod name;
#[cfg(test)]
mod tests;

use std::fmt;

pub use algorithm::{Encr, Group, Integ, Prf};
pub use name::list;

use crate::wire::{Proposal, Spi, Transform, protocol, transform};

/// The algorithms of an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeSuite {
    /// Encryption.
    pub encr: Encr,
    /// Integrity, unless encryption brings it.
    pub integ: Option<Integ>,
    /// For keys and authentication.
    pub prf: Prf,
    /// Of the key exchange.
    pub group: Group,
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        if let Some(integ) = self.integ {
            write!(f, "/{integ}")?;
        }
        write!(f, "/{}/{}", self.prf, self.group)
    }
}

/// The algorithms of a child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspSuite {
    /// Encryption; always with integrity.
    pub encr: Encr,
    /// Sequence numbers of 64 bits (RFC 4304).
    pub esn: bool,
    /// Of a key exchange of its own (perfect forward secrecy).
    pub group: Option<Group>,
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        if let Some(group) = self.group {
            write!(f, "/{group}")?;
        }
        f.write_str(if self.esn { "/ESN" } else { "" })
    }
}

/// What is offered and accepted for an IKE SA; each list by preference, none empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeOffer {
    /// Encryption. AES-CBC goes with [`Integ::HmacSha256_128`].
    pub encr: Vec<Encr>,
    /// Pseudorandom functions.
    pub prf: Vec<Prf>,
    /// Groups; the first is that of the KE payload sent along.
    pub groups: Vec<Group>,
}

impl Default for IkeOffer {
    /// All that is spoken, what our own peers are to use first.
    fn default() -> IkeOffer {
        IkeOffer {
            encr: vec![Encr::AesGcm16_256, Encr::AesGcm16_128, Encr::AesCbc256, Encr::AesCbc128],
            prf: vec![Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512],
            groups: Group::ALL.to_vec(),
        }
    }
}

/// What is offered and accepted for a child SA; each list by preference, none empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspOffer {
    /// Encryption; AES-GCM only, others are passed over.
    pub encr: Vec<Encr>,
    /// Groups for a key exchange in CREATE_CHILD_SA; None is to do without. IKE_AUTH never has one.
    pub groups: Vec<Option<Group>>,
    /// With and without extended sequence numbers.
    pub esn: Vec<bool>,
}

impl Default for EspOffer {
    /// All that is spoken, what our own peers are to use first.
    fn default() -> EspOffer {
        EspOffer {
            encr: vec![Encr::AesGcm16_256, Encr::AesGcm16_128],
            groups: Group::ALL.into_iter().map(Some).chain([None]).collect(),
            esn: vec![true, false],
        }
    }
}

/// A proposal of the peer, accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<Suite, PeerSpi> {
    /// The algorithms.
    pub suite: Suite,
    /// What the peer will receive on.
    pub peer_spi: PeerSpi,
    /// The only proposal of the answer, with our own SPI.
    pub answer: Proposal,
}

/// Nothing that the peer offers is accepted here. To be answered with NO_PROPOSAL_CHOSEN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no proposal chosen: the peer offers {offered}; accepted here: {ours}")]
pub struct NoProposal {
    /// The peer's side, as [`list`] prints it.
    pub offered: String,
    /// Ours.
    pub ours: String,
}

/// The peer's answer is none of what was offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer answers with {answer}, where {offered} was offered")]
pub struct NotOffered {
    /// The peer's side, as [`list`] prints it.
    pub answer: String,
    /// Ours.
    pub offered: String,
}

/// The proposals for an IKE SA. `spi` is ours in CREATE_CHILD_SA; there is none in IKE_SA_INIT.
pub fn ike_proposals(ours: &IkeOffer, spi: Option<Spi>) -> Vec<Proposal> {
    // algorithms with and without integrity must not share a proposal (RFC 7296 3.3)
    let runs = ours.encr.chunk_by(|a, b| a.is_aead() == b.is_aead());
    let transforms = runs.map(|encr| {
        let integ = encr.first().filter(|e| !e.is_aead()).map(|_| Integ::HmacSha256_128.transform());
        let encr = encr.iter().map(|e| e.transform());
        let prf = ours.prf.iter().map(|p| p.transform());
        encr.chain(integ).chain(prf).chain(ours.groups.iter().map(|g| g.transform())).collect()
    });
    numbered(protocol::IKE, spi.map(Vec::from).unwrap_or_default(), transforms)
}

/// The proposals for a child SA that will receive on `spi`; with groups if the exchange is one of `CREATE_CHILD_SA`,
/// without in IKE_AUTH (RFC 7296 1.2).
pub fn esp_proposals(ours: &EspOffer, exchange: ChildExchange, spi: u32) -> Vec<Proposal> {
    let groups = match exchange {
        ChildExchange::Auth => &[None],
        ChildExchange::CreateChildSa => &ours.groups[..],
    };
    // many peers do not know the group NONE, so to do without takes a proposal of its own
    let transforms = groups.chunk_by(|a, b| a.is_some() == b.is_some()).map(|groups| {
        let encr = ours.encr.iter().filter(|e| e.is_aead()).map(|e| e.transform());
        let groups = groups.iter().flatten().map(|g| g.transform());
        encr.chain(groups).chain(ours.esn.iter().map(|&esn| esn_transform(esn))).collect()
    });
    numbered(protocol::ESP, spi.to_be_bytes().to_vec(), transforms)
}

/// Where a child SA is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildExchange {
    /// IKE_AUTH: never with a key exchange of its own.
    Auth,
    /// CREATE_CHILD_SA
    CreateChildSa,
}

/// Chooses the algorithms of an IKE SA. `spi` is ours in CREATE_CHILD_SA; there is none in IKE_SA_INIT.
///
/// # Errors
/// Nothing fits.
pub fn choose_ike(
    offered: &[Proposal],
    ours: &IkeOffer,
    spi: Option<Spi>,
) -> Result<Choice<IkeSuite, Option<Spi>>, NoProposal> {
    let choose = |p: &Proposal| {
        let peer_spi = ike_spi(p, spi.is_some())?;
        let (suite, transforms) = match_ike(p, ours)?;
        let spi = spi.map(Vec::from).unwrap_or_default();
        Some(Choice { suite, peer_spi, answer: Proposal { spi, transforms, ..*p } })
    };
    offered.iter().find_map(choose).ok_or_else(|| NoProposal::new(offered, &ike_proposals(ours, spi)))
}

/// Chooses the algorithms of a child SA that will receive on `spi`.
///
/// # Errors
/// Nothing fits.
pub fn choose_esp(
    offered: &[Proposal],
    ours: &EspOffer,
    exchange: ChildExchange,
    spi: u32,
) -> Result<Choice<EspSuite, u32>, NoProposal> {
    let choose = |p: &Proposal| {
        let peer_spi = esp_spi(p)?;
        let (suite, transforms) = match_esp(p, ours, exchange)?;
        let spi = spi.to_be_bytes().to_vec();
        Some(Choice { suite, peer_spi, answer: Proposal { spi, transforms, ..*p } })
    };
    let none = || NoProposal::new(offered, &esp_proposals(ours, exchange, spi));
    offered.iter().find_map(choose).ok_or_else(none)
}

/// The algorithms that the peer chose of [`ike_proposals`], and its SPI in CREATE_CHILD_SA.
///
/// # Errors
/// It chose what was not offered, or not one transform of each type.
pub fn accept_ike(
    answer: &[Proposal],
    ours: &IkeOffer,
    spi: Option<Spi>,
) -> Result<(IkeSuite, Option<Spi>), NotOffered> {
    let offered = ike_proposals(ours, spi);
    let accept = || {
        let p = one_of(answer, &offered)?;
        Some((match_ike(p, ours)?.0, ike_spi(p, spi.is_some())?))
    };
    accept().ok_or_else(|| NotOffered::new(answer, &offered))
}

/// The algorithms that the peer chose of [`esp_proposals`], and the SPI that it will receive on.
///
/// # Errors
/// It chose what was not offered, or not one transform of each type.
pub fn accept_esp(
    answer: &[Proposal],
    ours: &EspOffer,
    exchange: ChildExchange,
) -> Result<(EspSuite, u32), NotOffered> {
    let offered = esp_proposals(ours, exchange, 0);
    let accept = || {
        let p = one_of(answer, &offered)?;
        Some((match_esp(p, ours, exchange)?.0, esp_spi(p)?))
    };
    accept().ok_or_else(|| NotOffered::new(answer, &offered))
}

/// The single proposal of an answer, if it takes one transform of each type out of the offered one of its number.
fn one_of<'a>(answer: &'a [Proposal], offered: &[Proposal]) -> Option<&'a Proposal> {
    let [answer] = answer else { return None };
    let offered = offered.iter().find(|o| o.number == answer.number && o.protocol == answer.protocol)?;
    let kinds = |p: &Proposal| {
        let mut kinds: Vec<_> = p.transforms.iter().map(|t| t.kind).collect();
        kinds.sort_unstable();
        kinds
    };
    let mut wanted = kinds(offered);
    wanted.dedup();
    let fits = kinds(answer) == wanted && answer.transforms.iter().all(|t| offered.transforms.contains(t));
    fits.then_some(answer)
}

/// The suite that we would have of a proposal, and one transform of each type in it.
fn match_ike(p: &Proposal, ours: &IkeOffer) -> Option<(IkeSuite, Vec<Transform>)> {
    use transform::{ENCR, GROUP, INTEG, PRF};
    if p.protocol != protocol::IKE || !only(p, &[ENCR, PRF, INTEG, GROUP]) {
        return None;
    }
    let (encr, integ) =
        ours.encr.iter().filter(|e| p.transforms.contains(&e.transform())).find_map(|&encr| {
            let integ = integ(p, encr)?;
            Some((encr, integ))
        })?;
    let prf = *ours.prf.iter().find(|f| p.transforms.contains(&f.transform()))?;
    let group = *ours.groups.iter().find(|g| p.transforms.contains(&g.transform()))?;
    let transforms = [Some(encr.transform()), integ.clone(), Some(prf.transform()), Some(group.transform())];
    let integ = integ.and_then(|t| Integ::from_id(t.id));
    Some((IkeSuite { encr, integ, prf, group }, transforms.into_iter().flatten().collect()))
}

/// The same for a child SA.
fn match_esp(p: &Proposal, ours: &EspOffer, exchange: ChildExchange) -> Option<(EspSuite, Vec<Transform>)> {
    use transform::{ENCR, ESN, GROUP, INTEG};
    if p.protocol != protocol::ESP || !only(p, &[ENCR, INTEG, GROUP, ESN]) {
        return None;
    }
    let encr = *ours.encr.iter().filter(|e| e.is_aead()).find(|e| p.transforms.contains(&e.transform()))?;
    let integ = integ(p, encr)?;
    let (group, group_answer) = group(p, ours, exchange)?;
    // without a transform of that type the peer knows nothing but the 32 bits of old
    let esn = match has(p, ESN) {
        true => *ours.esn.iter().find(|&&esn| p.transforms.contains(&esn_transform(esn)))?,
        false => *ours.esn.iter().find(|&&esn| !esn)?,
    };
    let transforms = [Some(encr.transform()), integ, group_answer, has(p, ESN).then(|| esn_transform(esn))];
    Some((EspSuite { encr, esn, group }, transforms.into_iter().flatten().collect()))
}

/// The group that we would have, if any, and the transform of it in the answer.
fn group(
    p: &Proposal,
    ours: &EspOffer,
    exchange: ChildExchange,
) -> Option<(Option<Group>, Option<Transform>)> {
    let none = none(transform::GROUP);
    let without = match has(p, transform::GROUP) {
        true => p.transforms.contains(&none).then_some(Some(none)),
        false => Some(None),
    };
    if exchange == ChildExchange::Auth {
        // a group other than NONE has no place here; peers that name one all the same do not use it
        return Some((None, without.flatten()));
    }
    ours.groups.iter().find_map(|&group| match group.map(Group::transform) {
        None => without.clone().map(|answer| (None, answer)),
        Some(wanted) => p.transforms.contains(&wanted).then_some((group, Some(wanted))),
    })
}

/// The transform of integrity that goes with `encr` in the answer. An AEAD goes without, or with an explicit NONE where
/// the proposal has that type (RFC 7296 3.3.3).
fn integ(p: &Proposal, encr: Encr) -> Option<Option<Transform>> {
    let wanted = match encr.is_aead() {
        true if !has(p, transform::INTEG) => return Some(None),
        true => none(transform::INTEG),
        false => Integ::HmacSha256_128.transform(),
    };
    p.transforms.contains(&wanted).then_some(Some(wanted))
}

fn has(p: &Proposal, kind: u8) -> bool {
    p.transforms.iter().any(|t| t.kind == kind)
}

fn only(p: &Proposal, kinds: &[u8]) -> bool {
    p.transforms.iter().all(|t| kinds.contains(&t.kind))
}

fn none(kind: u8) -> Transform {
    Transform::new(kind, 0, None)
}

fn esn_transform(esn: bool) -> Transform {
    Transform::new(transform::ESN, esn.into(), None)
}

/// The SPI of a proposal for an IKE SA: of 8 bytes when rekeying, else of none (RFC 7296 3.3.1).
fn ike_spi(p: &Proposal, rekeying: bool) -> Option<Option<Spi>> {
    match rekeying {
        true => Spi::try_from(&p.spi[..]).ok().map(Some),
        false => p.spi.is_empty().then_some(None),
    }
}

/// The SPI of a proposal for a child SA; the first 256 are reserved (RFC 4303 2.1).
fn esp_spi(p: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(p.spi[..].try_into().ok()?);
    (spi > 255).then_some(spi)
}

fn numbered(protocol: u8, spi: Vec<u8>, transforms: impl Iterator<Item = Vec<Transform>>) -> Vec<Proposal> {
    (1..)
        .zip(transforms)
        .map(|(number, transforms)| Proposal { number, protocol, spi: spi.clone(), transforms })
        .collect()
}

impl NoProposal {
    fn new(offered: &[Proposal], ours: &[Proposal]) -> NoProposal {
        NoProposal { offered: list(offered), ours: list(ours) }
    }
}

impl NotOffered {
    fn new(answer: &[Proposal], offered: &[Proposal]) -> NotOffered {
        NotOffered { answer: list(answer), offered: list(offered) }
    }
}
