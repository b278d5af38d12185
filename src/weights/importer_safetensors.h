// The importer of Hugging Face folders. It is one class in several files, by dialect: each knows how its tensors are
// called and what they mean, and nothing of the others. importer_safetensors.cc tells the dialects apart.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "weights/importer_core.h"
#include "weights/quantization_config.h"

namespace nibble {

class SafetensorsImporter final : public Importer {
 public:
  explicit SafetensorsImporter(std::shared_ptr<const Checkpoint> open)
      : Importer(std::move(open)), config_(read_quantization_config(checkpoint())) {}

  bool has(const TensorName& matrix) const override;

 protected:
  StoredMatrix locate(const MatrixRequest& request) override;
  StoredVector locate_vector(const TensorName& name) const override;
  bool is_borrowed(const MatrixRequest& request, const StoredMatrix& stored) const override;
  CanonicalWeight load(const MatrixRequest& request, const StoredMatrix& stored) const override;
  std::string_view unused_reason(const Tensor& tensor) const override;

  std::vector<std::string> unused_settings() const override;

 private:
  // A module: its tensors are x.weight and more beside it. name.hf is its name in the file, without a *.
  StoredMatrix locate_module(const MatrixRequest& request);
  bool has_module(const std::string& module) const;
  StoredMatrix locate_plain(const MatrixRequest& request);

  // importer_fp4.cc
  StoredMatrix locate_modelopt(const MatrixRequest& request);
  StoredMatrix locate_compressed_tensors(const MatrixRequest& request);
  StoredMatrix locate_deepseek_fp4(const MatrixRequest& request);

  // importer_fp8.cc
  StoredMatrix locate_fp8(const MatrixRequest& request);
  CanonicalWeight load_fp8(const MatrixRequest& request, const StoredMatrix& stored) const;

  // importer_mlx.cc
  StoredMatrix locate_mlx(const MatrixRequest& request);
  CanonicalWeight load_affine(const MatrixRequest& request, const StoredMatrix& stored) const;

  // importer_experts.cc
  StoredMatrix locate_experts(const MatrixRequest& request);
  StoredMatrix locate_one_by_one(const MatrixRequest& request);
  StoredMatrix locate_fused(const MatrixRequest& request, const std::string& tensor, const RowSelection& rows);
  StoredMatrix locate_gpt_oss(const MatrixRequest& request, const std::string& tensor, const RowSelection& rows);
  StoredVector locate_expert_biases(const std::string& name) const;
  CanonicalWeight load_selected(const MatrixRequest& request, const StoredMatrix& stored) const;

  // Throws InputError if the configuration was not written by that tool, or says something else of the module.
  void expect_scheme(const Tensor& codes, const std::string& module, std::initializer_list<QuantizationTool> tools,
                     const Scheme& found) const;
  // One float for all weights of a module, or one for each expert of a stack.
  const Tensor& take_tensor_scale(const std::string& name, const MatrixRequest& request);

  QuantizationConfig config_;
};

}  // namespace nibble
