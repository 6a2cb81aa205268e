// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// Owns reading a block header's signed fields (block/header.ts, `headerDigest`) inside a contract.
/// Invariant: what is returned is what the signer signed for this chain; anything malformed reverts.
library SignedHeader {
    error BadHeader();

    // Places in the header's list of fields.
    uint256 private constant COINBASE_FIELD = 11;
    uint256 private constant SLOT_FIELD = 12;
    // The fixed fields take under 900 bytes, so the list's length has two bytes.
    uint256 private constant LIST_TWO_BYTE_LENGTH = 0xf9;

    /// `fields` is the RLP list of header fields without the signature; `signature` is r, s, recovery id.
    /// Reverts unless the producer that the header names has signed it.
    function read(bytes calldata fields, bytes calldata signature)
        internal
        view
        returns (address producer, uint64 slot, bytes32 digest)
    {
        digest = keccak256(abi.encodePacked("TSR/header/1", block.chainid, fields));
        if (fields.length < 3 || uint8(fields[0]) != LIST_TWO_BYTE_LENGTH) revert BadHeader();
        if ((uint256(uint8(fields[1])) << 8) + uint8(fields[2]) != fields.length - 3) revert BadHeader();
        uint256 at = 3;
        for (uint256 field = 0; field < COINBASE_FIELD; field++) {
            (uint256 start, uint256 length) = _item(fields, at);
            at = start + length;
        }
        (uint256 coinbaseAt, uint256 coinbaseLength) = _item(fields, at);
        (uint256 slotAt, uint256 slotLength) = _item(fields, coinbaseAt + coinbaseLength);
        if (coinbaseLength != 20 || slotLength > 8) revert BadHeader();
        producer = address(bytes20(fields[coinbaseAt:coinbaseAt + 20]));
        for (uint256 i = 0; i < slotLength; i++) slot = (slot << 8) | uint8(fields[slotAt + i]);
        if (signature.length != 65) revert BadHeader();
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecover(
            digest, uint8(signature[64]) + 27, bytes32(signature[0:32]), bytes32(signature[32:64])
        );
        if (failure != ECDSA.RecoverError.NoError || signer != producer || signer == address(0)) revert BadHeader();
    }

    /// Where an RLP string's content starts, and its length. Header fields are strings, never lists.
    function _item(bytes calldata fields, uint256 at) private pure returns (uint256 start, uint256 length) {
        if (at >= fields.length) revert BadHeader();
        uint256 prefix = uint8(fields[at]);
        if (prefix < 0x80) {
            (start, length) = (at, 1);
        } else if (prefix <= 0xb7) {
            (start, length) = (at + 1, prefix - 0x80);
        } else {
            uint256 lengthBytes = prefix - 0xb7;
            if (prefix > 0xbf || lengthBytes > 2 || at + lengthBytes >= fields.length) revert BadHeader();
            for (uint256 i = 1; i <= lengthBytes; i++) length = (length << 8) | uint8(fields[at + i]);
            start = at + 1 + lengthBytes;
        }
        if (start + length > fields.length) revert BadHeader();
    }
}
