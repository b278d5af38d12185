// Uses both public headers of an installed Nibble: one row of ones times a matrix of ones, and a model that is not
// there.
#include <cstdio>
#include <nibble/dispatch_gemm_fp4.h>
#include <nibble/language_model.h>
#include <stdexcept>
#include <vector>

int main() {
  constexpr uint16_t kOne = 0x3C00;  // as a half
  const std::vector<nibble::Half> A(32, {kOne}), scales(3, {kOne});
  const std::vector<uint32_t> B(4 * 3, 0x22222222u);  // E2M1 code 2 is 1
  std::vector<float> C(3);
  const nibble::GemmStatus status = nibble::dispatch_gemm_fp4({.M = 1,
                                                               .N = 3,
                                                               .K = 32,
                                                               .group_size = 32,
                                                               .A = A.data(),
                                                               .B = B.data(),
                                                               .scales = scales.data(),
                                                               .C_float = C.data()});
  if (status != nibble::GemmStatus::ok || C != std::vector<float>{32, 32, 32}) {
    std::printf("dispatch_gemm_fp4: %s, %g %g %g\n", nibble::gemm_status_text(status), C[0], C[1], C[2]);
    return 1;
  }
  try {
    nibble::LanguageModel model("no/such/model");
  } catch (const std::runtime_error& e) {
    std::printf("as expected: %s\n", e.what());
    return 0;
  }
  return 1;
}
