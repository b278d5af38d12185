// What an AArch64 processor has beyond the architecture's baseline.
#pragma once

namespace nibble {

struct ArmFeatures {
  bool dotprod;  // SDOT, UDOT: sums of four products of bytes
  bool i8mm;     // SMMLA, USDOT: products of 2 × 8 bytes with 8 × 2
};

// What the operating system says (Linux and macOS); nothing elsewhere. Defined for AArch64 alone.
ArmFeatures arm_features();

}  // namespace nibble
