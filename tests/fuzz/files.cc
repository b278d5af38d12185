#include "fuzz/files.h"

#include <algorithm>

namespace nibble {

namespace {

constexpr std::string_view kMark = "@@ ";

}  // namespace

Files split_files(std::span<const uint8_t> bytes) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Files files;
  const auto next_mark = [&](size_t from) {  // at the beginning of a line
    for (size_t at = all.find(kMark, from); at != std::string_view::npos; at = all.find(kMark, at + 1))
      if (at == 0 || all[at - 1] == '\n') return at;
    return all.size();
  };
  size_t at = next_mark(0);
  if (at > 0) files[""] = all.substr(0, at);
  while (at < all.size()) {
    const size_t line_end = std::min(all.find('\n', at), all.size());
    std::string name(all.substr(at + kMark.size(), line_end - at - kMark.size()));
    std::erase_if(name, [](char c) { return c == '/' || c == '\0'; });
    const size_t begin = std::min(line_end + 1, all.size()), end = next_mark(begin);
    // The line end before a mark is the mark's.
    files[name] = all.substr(begin, end - begin - (end < all.size() && end > begin ? 1 : 0));
    at = end;
  }
  return files;
}

std::string join_files(const Files& files) {
  std::string all;
  for (const auto& [name, contents] : files) {
    if (!all.empty()) all += '\n';
    all.append(kMark).append(name).append("\n").append(contents);
  }
  return all;
}

}  // namespace nibble
