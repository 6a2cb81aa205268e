/**
 * Owns: the typed ABIs of the system contracts, in human-readable form so that viem infers
 * argument types. Invariant (tested): equal to what the compiler wrote for the sources.
 */
import { parseAbi } from "viem";

export const stakeRegistryAbi = parseAbi([
  "function initialize(uint64 maturitySeconds, uint64 unbondingSeconds, uint256 minimumStake, (address owner, bytes blsPublicKey, bytes proofOfPossession, uint256 amount)[] genesisStakes)",
  "function stake(bytes blsPublicKey, bytes proofOfPossession) payable",
  "function topUp() payable",
  "function unbond(uint256 amount)",
  "function withdraw() returns (uint256 amount)",
  "function slash(address owner, uint256 amount, bytes32 reason) returns (uint256 taken)",
  "function activeStakers() view returns ((address owner, bytes blsPublicKey, uint256 amount)[])",
  "function totalStaked() view returns (uint256)",
]);

export const masterRegistryAbi = parseAbi([
  "function initialize(uint256 pledge, uint64 heartbeatWindowSeconds, uint64 unbondingSeconds, uint16 downtimeForfeitBps, (address owner, bytes blsPublicKey, bytes proofOfPossession, bytes32 transportKey, uint256 pledge)[] genesisMasters)",
  "function register(bytes blsPublicKey, bytes proofOfPossession, bytes32 transportKey) payable",
  "function heartbeat()",
  "function isActive(address master) view returns (bool)",
  "function nextPayee() view returns (address)",
  "function recordPayment(address master, uint256 amount)",
  "function expel(address master, uint16 forfeitBps, bytes32 reason)",
]);

export const computeRegistryAbi = parseAbi([
  "function initialize((address owner, bytes32 transportKey, uint8 grade, uint96[4] power, uint64 memoryBytes, bytes32 proofDigest)[] genesisNodes)",
]);

export const taskMarketAbi = parseAbi([
  "function initialize((address platform, uint16 feeBps, uint16 minerCollateralBps, uint64 cancelGraceSeconds, uint64 expireGraceSeconds, uint64 freeShareMicroUsd, uint96 feeWeiPerMultiplyAdd, uint32 plausibilityFactor) parameters)",
  "function provenMultiplyAdds() view returns (uint256)",
]);

export const priceFeedAbi = parseAbi([
  "function initialize(uint256 priceMicroUsdPerTsr, uint64 maxAgeSeconds)",
]);

export const distributionAbi = parseAbi([
  "function initialize(address[4] beneficiaries, uint256[4] amounts)",
]);
