use super::*;

const SPI: u32 = 0x0102_0304;
const PEER_SPI: u32 = 0x0a0b_0c0d;

/// Both sides' defaults, in every exchange.
#[test]
fn own_peers_agree_on_the_best() {
    let ours = IkeOffer::default();
    for (mine, theirs) in [(None, None), (Some([7; 8]), Some([9; 8]))] {
        let offered = ike_proposals(&ours, mine);
        let choice = choose_ike(&offered, &ours, theirs).unwrap();
        assert_eq!(choice.suite.to_string(), "AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519");
        assert_eq!(choice.peer_spi, mine);
        assert_eq!(accept_ike(&[choice.answer], &ours, mine), Ok((choice.suite, theirs)));
    }
    let ours = EspOffer::default();
    for (exchange, suite) in [
        (ChildExchange::Auth, "AES_GCM_16-256/ESN"),
        (ChildExchange::CreateChildSa, "AES_GCM_16-256/CURVE_25519/ESN"),
    ] {
        let offered = esp_proposals(&ours, exchange, PEER_SPI);
        let choice = choose_esp(&offered, &ours, exchange, SPI).unwrap();
        assert_eq!((choice.suite.to_string(), choice.peer_spi), (suite.to_string(), PEER_SPI));
        assert_eq!(accept_esp(&[choice.answer], &ours, exchange), Ok((choice.suite, SPI)));
    }
}
