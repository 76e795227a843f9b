//! Notify message types (RFC 7296 3.10.1, and the extensions named at each).

/// The first type that tells of a status; those below are errors.
pub const FIRST_STATUS: u16 = 16384;

/// A critical payload was not understood; data is its type.
pub const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
/// No IKE SA has these SPIs.
pub const INVALID_IKE_SPI: u16 = 4;
/// The major version is not spoken.
pub const INVALID_MAJOR_VERSION: u16 = 5;
/// The message cannot be understood.
pub const INVALID_SYNTAX: u16 = 7;
/// The message ID is outside the window.
pub const INVALID_MESSAGE_ID: u16 = 9;
/// An ESP packet came with an SPI that no SA has.
pub const INVALID_SPI: u16 = 11;
/// None of the proposals is acceptable.
pub const NO_PROPOSAL_CHOSEN: u16 = 14;
/// Another group is wanted; data is its number.
pub const INVALID_KE_PAYLOAD: u16 = 17;
/// The peer could not be authenticated.
pub const AUTHENTICATION_FAILED: u16 = 24;
/// One address a side is wanted.
pub const SINGLE_PAIR_REQUIRED: u16 = 34;
/// No more child SAs on this IKE SA.
pub const NO_ADDITIONAL_SAS: u16 = 35;
/// No address can be given out.
pub const INTERNAL_ADDRESS_FAILURE: u16 = 36;
/// A configuration payload was wanted.
pub const FAILED_CP_REQUIRED: u16 = 37;
/// No selector is acceptable.
pub const TS_UNACCEPTABLE: u16 = 38;
/// Packets came that the selectors do not allow.
pub const INVALID_SELECTORS: u16 = 39;
/// Addresses cannot be used (RFC 4555).
pub const UNACCEPTABLE_ADDRESSES: u16 = 40;
/// A NAT was found where none may be (RFC 4555).
pub const UNEXPECTED_NAT_DETECTED: u16 = 41;
/// Not now; try again later (RFC 7296 2.25).
pub const TEMPORARY_FAILURE: u16 = 43;
/// The child SA to be rekeyed is not there (RFC 7296 2.25).
pub const CHILD_SA_NOT_FOUND: u16 = 44;

/// No other IKE SA of this identity holds.
pub const INITIAL_CONTACT: u16 = 16384;
/// How many requests may be under way.
pub const SET_WINDOW_SIZE: u16 = 16385;
/// More selectors could have been allowed.
pub const ADDITIONAL_TS_POSSIBLE: u16 = 16386;
/// IPComp is offered.
pub const IPCOMP_SUPPORTED: u16 = 16387;
/// Hash of SPIs and the source address and port (RFC 7296 2.23).
pub const NAT_DETECTION_SOURCE_IP: u16 = 16388;
/// Hash of SPIs and the destination address and port (RFC 7296 2.23).
pub const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
/// Repeat the request with this cookie (RFC 7296 2.6).
pub const COOKIE: u16 = 16390;
/// Transport mode is wanted, or granted.
pub const USE_TRANSPORT_MODE: u16 = 16391;
/// Certificates may be fetched by HTTP.
pub const HTTP_CERT_LOOKUP_SUPPORTED: u16 = 16392;
/// The request replaces the SA of this SPI.
pub const REKEY_SA: u16 = 16393;
/// No padding for traffic flow confidentiality.
pub const ESP_TFC_PADDING_NOT_SUPPORTED: u16 = 16394;
/// Fragments need not match the first one's selector.
pub const NON_FIRST_FRAGMENTS_ALSO: u16 = 16395;
/// MOBIKE is spoken (RFC 4555).
pub const MOBIKE_SUPPORTED: u16 = 16396;
/// One more address of the sender (RFC 4555).
pub const ADDITIONAL_IP4_ADDRESS: u16 = 16397;
/// One more address of the sender (RFC 4555).
pub const ADDITIONAL_IP6_ADDRESS: u16 = 16398;
/// The sender has no other address (RFC 4555).
pub const NO_ADDITIONAL_ADDRESSES: u16 = 16399;
/// The addresses of the SAs have changed (RFC 4555).
pub const UPDATE_SA_ADDRESSES: u16 = 16400;
/// To be echoed from the new path (RFC 4555).
pub const COOKIE2: u16 = 16401;
/// No NAT may be between (RFC 4555).
pub const NO_NATS_ALLOWED: u16 = 16402;
/// After so many seconds the responder wants a new authentication (RFC 4478).
pub const AUTH_LIFETIME: u16 = 16403;
/// Several authentications in a row are possible (RFC 4739).
pub const MULTIPLE_AUTH_SUPPORTED: u16 = 16404;
/// Redirection is understood (RFC 5685).
pub const REDIRECT_SUPPORTED: u16 = 16406;
/// Authentication by EAP alone is possible (RFC 5998).
pub const EAP_ONLY_AUTHENTICATION: u16 = 16417;
/// An IKE SA without a child is possible (RFC 6023).
pub const CHILDLESS_IKEV2_SUPPORTED: u16 = 16418;
/// Fragments are understood (RFC 7383).
pub const IKEV2_FRAGMENTATION_SUPPORTED: u16 = 16430;
/// The hashes that signatures may use, 16 bits each (RFC 7427).
pub const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
