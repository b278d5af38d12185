#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "checkpoint/gguf.h"
#include "checkpoint/gguf_split.h"
#include "checkpoint/json_file.h"
#include "checkpoint/safetensors.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

std::shared_ptr<const MappedFile> map_file(const fs::path& path) {
  constexpr std::string_view kPointer = "version https://git-lfs";
  auto file = std::make_shared<const MappedFile>(path);
  const auto bytes = file->bytes();
  if (bytes.size() >= kPointer.size() && std::equal(kPointer.begin(), kPointer.end(), bytes.begin()))
    throw_input_error("{}: is a Git LFS pointer of {} bytes, not the file itself; run git lfs pull", path.string(),
                      bytes.size());
  return file;
}

// Adds the tensors of one safetensors file. `file_of_tensor` says where each tensor so far came from.
void add_safetensors(const fs::path& path, Checkpoint& checkpoint, std::map<std::string, std::string>& file_of_tensor) {
  auto file = map_file(path);
  for (auto& tensor : parse_safetensors(file->bytes(), path.string())) {
    const auto [it, is_new] = file_of_tensor.emplace(tensor.name, path.filename().string());
    if (!is_new)
      throw_input_error("{}: tensor {}: is also in {}; remove the file that does not belong to the checkpoint",
                        path.string(), tensor.name, it->second);
    checkpoint.tensors.emplace(tensor.name, std::move(tensor));
  }
  checkpoint.files.push_back(std::move(file));
}

// tensor → file name, as the index has it.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const auto index = read_json_file(path, RepeatedKeys::rejected);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object())
    throw_input_error("{}: has no object \"weight_map\"; the file is damaged: fetch it again", path.string());
  std::map<std::string, std::string> shard_of_tensor;
  for (const auto& [tensor, shard] : weight_map->items()) {
    const auto name = shard.is_string() ? shard.get<std::string>() : std::string();
    if (name.empty() || fs::path(name).filename() != name || name == "." || name == "..")
      throw_input_error("{}: tensor {}: its file is given as \"{}\", the name of a file beside the index expected",
                        path.string(), tensor, name);
    shard_of_tensor.emplace(tensor, name);
  }
  return shard_of_tensor;
}

void add_shards(const fs::path& index_path, Checkpoint& checkpoint) {
  const auto folder = index_path.parent_path();
  const auto shard_of_tensor = read_index(index_path);
  std::map<std::string, std::string> first_tensor_of_shard, file_of_tensor;
  for (const auto& [tensor, shard] : shard_of_tensor) first_tensor_of_shard.emplace(shard, tensor);
  for (const auto& [shard, tensor] : first_tensor_of_shard) {
    if (!fs::exists(folder / shard))
      throw_input_error("{}: is not there, but {} has tensor {} in it; fetch the missing file",
                        (folder / shard).string(), kIndex, tensor);
    add_safetensors(folder / shard, checkpoint, file_of_tensor);
  }
  for (const auto& [tensor, shard] : shard_of_tensor) {
    const auto it = file_of_tensor.find(tensor);
    if (it == file_of_tensor.end() || it->second != shard)
      throw_input_error("{}: tensor {}: is not there, but {} has it in this file{}; fetch both files again",
                        (folder / shard).string(), tensor, kIndex,
                        it == file_of_tensor.end() ? "" : fmt::format(" (it is in {})", it->second));
  }
}

std::vector<fs::path> files_with_extension(const fs::path& folder, std::string_view extension) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

void add_all_safetensors(const fs::path& folder, Checkpoint& checkpoint) {
  const auto files = files_with_extension(folder, ".safetensors");
  if (files.empty()) throw_input_error("{}: has no *.safetensors; fetch the weights", folder.string());
  std::map<std::string, std::string> file_of_tensor;
  for (const auto& file : files) add_safetensors(file, checkpoint, file_of_tensor);
}

Checkpoint open_folder(const fs::path& folder) {
  if (!fs::exists(folder / "config.json")) {
    const auto ggufs = files_with_extension(folder, ".gguf");
    throw_input_error("{}: has no config.json; {}", folder.string(),
                      ggufs.empty() ? "name the folder of a Hugging Face checkpoint or a .gguf file"
                                    : fmt::format("to run the GGUF file in it, name {}", ggufs.front().string()));
  }
  const auto read_if_there = [&](const char* name) {
    return fs::exists(folder / name) ? read_json_file(folder / name, RepeatedKeys::last_wins) : nlohmann::json();
  };
  Checkpoint checkpoint{.container = Container::safetensors,
                        .path = folder,
                        .config = read_if_there("config.json"),
                        .hf_quant_config = read_if_there("hf_quant_config.json"),
                        .generation_config = read_if_there("generation_config.json"),
                        .tensors = {},
                        .files = {}};
  // The index comes first: some writers put one beside a single file too. A single model.safetensors goes before other
  // files, which are often the same weights under other names (consolidated.safetensors).
  if (fs::exists(folder / kIndex)) {
    add_shards(folder / kIndex, checkpoint);
  } else if (std::map<std::string, std::string> file_of_tensor; fs::exists(folder / kSingleFile)) {
    add_safetensors(folder / kSingleFile, checkpoint, file_of_tensor);
  } else {
    add_all_safetensors(folder, checkpoint);
  }
  return checkpoint;
}

Checkpoint open_gguf(const fs::path& path) {
  if (path.extension() == ".safetensors")
    throw_input_error("{}: is only the weights of a checkpoint; name its folder, which also has config.json",
                      path.string());
  std::vector<std::shared_ptr<const MappedFile>> files = {map_file(path)};
  auto contents = parse_gguf(files[0]->bytes(), path.string());
  const GgufSplit split = read_gguf_split(contents, path.string());
  if (split.number > 0)
    throw_input_error("{}: is part {} of a model in {} files; name the first, {}", path.string(), split.number + 1,
                      split.count, gguf_part_path(path, split, 0).string());
  for (int64_t number = 1; number < split.count; number++) {
    const auto part = gguf_part_path(path, split, number);
    if (!fs::exists(part))
      throw_input_error("{}: is not there, but {} is the first of {} parts; fetch the missing file", part.string(),
                        path.string(), split.count);
    files.push_back(map_file(part));
    add_gguf_part(parse_gguf(files.back()->bytes(), part.string()), part.string(), number, split, path.string(),
                  contents);
  }
  return {.container = Container::gguf,
          .path = path,
          .config = std::move(contents.metadata),
          .hf_quant_config = {},
          .generation_config = {},
          .tensors = std::move(contents.tensors),
          .files = std::move(files)};
}

}  // namespace

Checkpoint open_checkpoint(const fs::path& path) try {
  if (!fs::exists(path))
    throw_input_error("{}: does not exist; name the folder of a Hugging Face checkpoint or a .gguf file",
                      path.string());
  return fs::is_directory(path) ? open_folder(path) : open_gguf(path);
} catch (const fs::filesystem_error& error) {
  throw_input_error("{}: cannot be read: {}", error.path1().string(), error.code().message());
}

}  // namespace nibble
