#include "commands.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/topology.h"
#include "model_list.h"

namespace nibble {

CLI::Option* add_model_option(CLI::App& command, std::string& path) {
  return command
      .add_option("MODEL", path, "A folder in Hugging Face layout, a .gguf file, or a name that `nibble models` lists")
      ->transform([](const std::string& name) { return model_path(name).string(); })
      ->required();
}

CLI::Option* add_model_arguments(CLI::App& command, ModelArguments& a) {
  CLI::Option* model = add_model_option(command, a.path);
  std::string backends;
  for (std::string_view name : backend_names()) backends += (backends.empty() ? "" : ", ") + std::string(name);
  command.add_option("--backend", a.backend, "Where it runs: " + backends + ". Default: the best of this machine")
      ->envname("NIBBLE_BACKEND")
      ->check(not_empty);
  command.add_option("--threads", a.threads, "Threads. Default, as with 0: one for each processor")
      ->envname("NIBBLE_THREADS")
      ->check(CLI::Range(0, 1024));
  command.add_option("--ctx", a.ctx, "Positions that the KV cache has room for")
      ->envname("NIBBLE_CTX")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 28))
      ->capture_default_str();
  std::vector<std::string> kv_cache_types;
  for (KvCacheType type : kKvCacheTypes) kv_cache_types.emplace_back(kv_cache_type_name(type));
  command
      .add_option("--kv-cache-type", a.kv_cache_type,
                  "How keys and values are kept: f16, f32 or q8_0 (q8 for short). Default: the backend's")
      ->envname("NIBBLE_KV_CACHE_TYPE")
      ->transform([](const std::string& name) { return name == "q8" ? "q8_0" : name; })
      ->check(CLI::IsMember(kv_cache_types));
  command
      .add_option("--activations", a.activation_bits,
                  "Bits that the CPU rounds activations to: 15 or 8. Default: 15, as good as float32")
      ->envname("NIBBLE_ACTIVATIONS")
      ->check(CLI::IsMember({"15", "8"}));
  command
      .add_option("--packed-cache", a.packed_cache,
                  "Keep packed weights in this folder, so that the next start only reads them (cpu). Default: nowhere")
      ->envname("NIBBLE_PACKED_CACHE")
      ->check(not_empty);
  return model;
}

BackendOptions backend_options(const ModelArguments& a) {
  return {.name = a.backend, .num_threads = a.threads, .activation_bits = a.activation_bits};
}

std::optional<KvCacheType> kv_cache_type(const ModelArguments& a) {
  const auto* type = std::ranges::find(kKvCacheTypes, a.kv_cache_type, kv_cache_type_name);
  return type != kKvCacheTypes.end() ? std::optional(*type) : std::nullopt;
}

std::unique_ptr<Engine> load_engine(const ModelArguments& a, ModelFiles files) {
  const std::string name = files.checkpoint->path.string();
  auto engine = std::make_unique<Engine>(std::move(files), EngineOptions{.backend = backend_options(a),
                                                                         .kv_cache_type = kv_cache_type(a),
                                                                         .max_len = a.ctx,
                                                                         .num_sequences = a.num_sequences,
                                                                         .packed_cache = a.packed_cache,
                                                                         .measures_roof = a.measures_roof,
                                                                         .progress = progress_bar("loading")});
  fmt::print(stderr, "{}: backend {} ({})\n", name, engine->backend().name(), engine->backend().description());
  return engine;
}

void check_prompt(std::span<const int32_t> tokens, const Model& model, const ModelArguments& a) {
  check_tokens(tokens, model.config, 0, std::min(a.ctx, model.config.max_position_embeddings));
}

std::string cache_note(double bytes_per_token) {
  const Topology topology = read_topology();
  if (topology.caches.empty()) return {};
  const auto cache = static_cast<double>(topology.caches.back().bytes);
  if (bytes_per_token >= cache) return {};
  return fmt::format("these {} fit into the last-level cache ({}), which may be faster than the roof, that of memory",
                     bytes_text(bytes_per_token), bytes_text(cache));
}

std::vector<int32_t> parse_tokens(const std::string& text) {
  std::vector<int32_t> tokens;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    int32_t token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc() || (next != end && *next != ','))
      throw_input_error("--tokens: '{}' at character {}; token ids with commas between them expected, as in 1,2,3",
                        text.substr(0, 80), at - text.data());
    tokens.push_back(token);
    if (next == end) return tokens;
    at = next + 1;
  }
}

std::string read_stdin() {
  std::string text;
  char bytes[65536];
  while (true) {
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_input_error("stdin cannot be read: {}", std::strerror(errno));
    if (count == 0) return text;
    text.append(bytes, static_cast<size_t>(count));
  }
}

}  // namespace nibble
