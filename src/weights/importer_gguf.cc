// GGUF files. A block type keeps a group's scale in front of its codes, and orders the codes its own way; here they
// become rows of codes and rows of scales:
//
//   type    bytes of a block   weights   order of the nibbles
//   MXFP4   e[1], q[16]        32        low nibble of q[j] is element j, high nibble is j + 16
//   Q4_0    d[2], q[16]        32        the same
//   Q4_1    d[2], m[2], q[16]  32        the same
//   IQ4_NL  d[2], q[16]        32        the same
//   Q8_0    d[2], q[32]        32
//   NVFP4   d[4], q[32]        64        in each 16 of them, low nibble of byte j of 8 is j, high nibble is j + 8
//
// Codes of more than 4 bits have their high bits elsewhere:
//
//   Q5_0    d[2], h[4], q[16]        32   as Q4_0; bit i of the number h is the fifth of element i
//   Q5_1    d[2], m[2], h[4], q[16]  32   the same
//   Q4_K    s[16], q[128]            256  low nibbles of 32 bytes are 32 elements, their high nibbles the next 32
//   Q5_K    s[16], h[32], q[128]     256  the same; bit i of h[l] is the fifth of element 32 i + l
//   Q6_K    q[128], h[64], s[18]     256  of each 128: low nibbles of 64 bytes, then their high ones; bits 2i and 2i + 1
//                                         of byte l of 32 of h are the high bits of element 32 i + l
//
// F32, F16 and BF16 rows are taken as they are, unless the rows of q and k have to be put back in order.
#include <algorithm>

#include "weights/importer_core.h"

namespace nibble {
namespace {

// `group` bytes or 16, in each `group` of which the first half of the codes are the low nibbles, the second half the high ones,
// to ours: even k low, odd high.
template <int group>
void reorder_nibbles(const uint8_t* ggml, uint8_t* codes) {
  typedef uint16_t Pairs __attribute__((vector_size(16)));
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  constexpr int half = group < 16 ? group / 2 : 8;  // bytes of codes in a run
  for (int from = 0; from < group; from += 16) {
    const auto pairs = load_unaligned<Pairs>(ggml + from), low = pairs & 0x0F0F, high = pairs >> 4 & 0x0F0F;
    const Bytes firsts = __builtin_convertvector((low | low >> 4) & 0xFF, Bytes);
    const Bytes seconds = __builtin_convertvector((high | high >> 4) & 0xFF, Bytes);
    for (int i = 0; i < 8; i += half) {
      uint8_t* to = codes + (group < 16 ? 2 * i : from / 2);
      std::memcpy(to, reinterpret_cast<const uint8_t*>(&firsts) + i, half);
      std::memcpy(to + group / 2, reinterpret_cast<const uint8_t*>(&seconds) + i, half);
    }
  }
}

// How a block is divided: its scales into `scales`, its codes in our order into `codes`, which is zeroed.
template <class Format>
struct GgmlBlock {
  static constexpr int64_t group_size = Format::group_size;
  static constexpr int64_t size = Format::group_scale_bytes + Format::group_size * Format::code_bits / 8;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scale) {
    std::memcpy(scale, block, Format::group_scale_bytes);
    const uint8_t* q = block + Format::group_scale_bytes;
    if constexpr (Format::code_bits == 8) {
      std::memcpy(codes, q, Format::group_size);
    } else if constexpr (Format::code_bits == 4) {
      static_assert(Format::group_size == 32);
      reorder_nibbles<16>(q, codes);
    } else {
      static_assert(Format::id == FormatId::q5_0 || Format::id == FormatId::q5_1);
      const auto high = load_unaligned<uint32_t>(q);
      for (int k = 0; k < 32; k++) {
        const uint32_t low = k < 16 ? q[4 + k] & 15u : q[4 + k - 16] >> 4;
        set_code<5>(codes, k, low | ((high >> k & 1) << 4));
      }
    }
  }
};

// Element i of a run of `length`: runs lie two by two in the low and then in the high nibbles of `length` bytes.
uint32_t run_nibble(const uint8_t* q, int length, int run, int i) {
  const uint32_t byte = q[run / 2 * length + i];
  return run % 2 == 0 ? byte & 15u : byte >> 4;
}

template <>
struct GgmlBlock<Q4_K> {
  static constexpr int64_t group_size = 256;
  static constexpr int64_t size = 144;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scale) {
    std::memcpy(scale, block, kKScaleBytes);
    for (int i = 0; i < 128; i += 32) reorder_nibbles<32>(block + kKScaleBytes + i, codes + i);
  }
};

template <>
struct GgmlBlock<Q5_K> {
  static constexpr int64_t group_size = 256;
  static constexpr int64_t size = 176;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scale) {
    std::memcpy(scale, block, kKScaleBytes);
    const uint8_t* high = block + kKScaleBytes;
    uint8_t unpacked[256];
    for (int run = 0; run < 8; run++)
      for (int i = 0; i < 32; i++)
        unpacked[32 * run + i] = static_cast<uint8_t>(run_nibble(high + 32, 32, run, i) | (high[i] >> run & 1u) << 4);
    pack_codes<5>(unpacked, 256, codes);
  }
};

template <>
struct GgmlBlock<Q6_K> {
  static constexpr int64_t group_size = 256;
  static constexpr int64_t size = 210;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scale) {
    std::memcpy(scale, block + 192, 18);
    const uint8_t* high = block + 128;
    uint8_t unpacked[256];
    for (int run = 0; run < 8; run++)
      for (int i = 0; i < 32; i++) {
        const uint32_t top = high[run / 4 * 32 + i] >> (run % 4 * 2) & 3u;
        unpacked[32 * run + i] = static_cast<uint8_t>(run_nibble(block, 64, run / 2, run % 2 * 32 + i) | top << 4);
      }
    pack_codes<6>(unpacked, 256, codes);
  }
};

// Four groups of 16 in a block. ggml reads the scale 0x7F, which is NaN in E4M3, as 0.
template <>
struct GgmlBlock<Nvfp4> {
  static constexpr int64_t group_size = 64;
  static constexpr int64_t size = 36;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
    for (int64_t group = 0; group < 4; group++) scales[group] = block[group] == 0x7F ? 0 : block[group];
    for (int64_t i = 0; i < 32; i += 16) reorder_nibbles<8>(block + 4 + i, codes + i);
  }
};

// What the types of a file become.
using GgufFormats = FormatList<F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Iq4Nl, Mxfp4, Nvfp4>;

std::optional<FormatId> format_of(DType dtype) {
  switch (dtype) {
    case DType::q8_0: return FormatId::q8_0;
    case DType::q4_0: return FormatId::q4_0;
    case DType::q4_1: return FormatId::q4_1;
    case DType::q5_0: return FormatId::q5_0;
    case DType::q5_1: return FormatId::q5_1;
    case DType::q4_k: return FormatId::q4_k;
    case DType::q5_k: return FormatId::q5_k;
    case DType::q6_k: return FormatId::q6_k;
    case DType::iq4_nl: return FormatId::iq4_nl;
    case DType::mxfp4: return FormatId::mxfp4;
    case DType::nvfp4: return FormatId::nvfp4;
    default: return plain_format(dtype);
  }
}

class GgufImporter final : public Importer {
 public:
  explicit GgufImporter(std::shared_ptr<const Checkpoint> open) : Importer(std::move(open)) {}

  bool has(const TensorName& matrix) const override { return checkpoint().find(matrix.gguf + ".weight") != nullptr; }

 protected:
  StoredVector locate_vector(const TensorName& name) const override { return {.tensor = name.gguf}; }
  StoredMatrix locate(const MatrixRequest& request) override;
  bool is_borrowed(const MatrixRequest& request, const StoredMatrix& stored) const override {
    return plain_format(stored.codes->dtype) && request.gguf_permuted_heads == 0;
  }
  CanonicalWeight load(const MatrixRequest& request, const StoredMatrix& stored) const override;
  std::string_view unused_reason(const Tensor& tensor) const override;
};

StoredMatrix GgufImporter::locate(const MatrixRequest& request) {
  const Tensor& weight = take(request.name.gguf + ".weight");
  const std::optional<FormatId> format = format_of(weight.dtype);
  if (!format)
    fail(weight,
         "type {} is not read; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, IQ4_NL, "
         "MXFP4 and NVFP4 are",
         dtype_name(weight.dtype));
  expect_columns(weight, request, request.K);
  expect_whole_groups(weight, request.K, dtype_block(weight.dtype).elements);
  expect_pairs(weight, request.N, request.gguf_permuted_heads);

  const Tensor* tensor_scale = take_if_present(request.name.gguf + ".scale");
  if (tensor_scale != nullptr) {
    if (!has_tensor_scale(*format))
      fail(*tensor_scale, "a tensor scale beside codes of {}, which is read only beside NVFP4",
           dtype_name(weight.dtype));
    expect_dtype(*tensor_scale, {DType::f32});
    if (tensor_scale->shape != std::vector<int64_t>{1}) expect_shape(*tensor_scale, {request.E});
  }
  return {.format = *format,
          .codes = &weight,
          .tensor_scale = tensor_scale,
          .source = std::string(dtype_name(weight.dtype))};
}

CanonicalWeight GgufImporter::load(const MatrixRequest& request, const StoredMatrix& stored) const {
  if (is_borrowed(request, stored)) return borrow(request, stored);

  OwnedWeight owned = own(request, stored);
  visit_format(GgufFormats{}, stored.format, [&](auto format) {
    using Format = decltype(format);
    const int64_t row_codes = code_bytes<Format>(request.K), row_scales = scale_bytes<Format>(request.K);
    for (int64_t row = 0; row < request.E * request.N; row++) {
      const int64_t e = row / request.N, n = row % request.N;
      const int64_t file_row = e * request.N + gguf_row(n, request.N, request.gguf_permuted_heads);
      uint8_t* codes = owned.codes + row * row_codes;
      if constexpr (Format::group_scale_bytes == 0) {
        std::memcpy(codes, stored.codes->bytes.data() + file_row * row_codes, static_cast<size_t>(row_codes));
      } else {
        using Block = GgmlBlock<Format>;
        uint8_t* scales = owned.scales + row * row_scales;
        const int64_t num_blocks = request.K / Block::group_size;
        const uint8_t* blocks = stored.codes->bytes.data() + file_row * num_blocks * Block::size;
        std::memset(codes, 0, static_cast<size_t>(row_codes));
        for (int64_t b = 0; b < num_blocks; b++)
          Block::split(blocks + b * Block::size, codes + b * (row_codes / num_blocks),
                       scales + b * (row_scales / num_blocks));
      }
    }
  });
  return std::move(owned.weight);
}

// Activation scales, the rotation's frequencies (read with the configuration), and layers that predict more than the
// next token, which are the last ones of block_count.
std::string_view GgufImporter::unused_reason(const Tensor& tensor) const {
  const std::string_view name = tensor.name;
  if (name.ends_with(".input_scale")) return kActivationScale;
  if (name == "rope_freqs.weight") return "table of the rotation, read with the configuration";
  if (name.ends_with(".attn_kv_b.weight")) return "the same as attn_k_b and attn_v_b, which are used";

  const auto& metadata = checkpoint().config;
  const auto number = [&](const std::string& key) -> int64_t {
    const auto it = metadata.find(key);
    return it != metadata.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  const auto architecture = metadata.is_object() ? metadata.find("general.architecture") : metadata.end();
  if (architecture == metadata.end() || !architecture->is_string()) return {};
  const auto prefix = architecture->get<std::string>();
  const int64_t num_blocks = std::max<int64_t>(number(prefix + ".block_count"), 0);  // with those layers, the last ones
  const int64_t num_predicting = std::clamp<int64_t>(number(prefix + ".nextn_predict_layers"), 0, num_blocks);
  const bool predicts = is_of_layers(name, "blk.", num_blocks - num_predicting, num_predicting);
  return predicts ? kPredictionLayer : std::string_view();
}

}  // namespace

std::unique_ptr<WeightSource> make_gguf_importer(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<GgufImporter>(std::move(checkpoint));
}

}  // namespace nibble
