// The shaders as text, each .metal file with its headers in it: what Metal's compiler gets at run time. embed_shaders.py
// writes the list when the project is built.
#pragma once

#include <span>
#include <string_view>

namespace nibble {

struct ShaderText {
  std::string_view file, text;
};
extern const std::span<const ShaderText> kShaderTexts;

}  // namespace nibble
