// The loader: some threads read, the caller's packs.
#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <variant>

#include "base/error.h"
#include "weights/weight_table.h"

namespace nibble {

namespace {

// While one checks what it has read, and waits for the last bytes of it, the other keeps the disk busy.
constexpr size_t kReadingThreads = 2;

// A weight, or what reading it threw.
using Loaded = std::variant<CanonicalWeight, std::vector<float>, std::exception_ptr>;

// Reads the table's weights ahead of whoever takes them.
class Readers {
 public:
  Readers(const WeightTable& table, bool check_floats) : table_(table), check_floats_(check_floats) {
    threads_.emplace_back([this] { read_weights(); });
    try {
      while (threads_.size() < kReadingThreads) threads_.emplace_back([this] { read_weights(); });
    } catch (const std::system_error&) {  // the system has no more threads: those that are there will do
    }
  }
  ~Readers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
  }

  // The next weight. Throws what reading it threw.
  Loaded take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_.contains(num_taken_); });
    Loaded loaded = std::move(ready_.extract(num_taken_).mapped());
    ahead_ -= table_.entries()[num_taken_++].bytes();
    changed_.notify_all();
    if (const auto* failure = std::get_if<std::exception_ptr>(&loaded)) std::rethrow_exception(*failure);
    return loaded;
  }

 private:
  void read_weights() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || num_begun_ == table_.entries().size() || has_room(); });
      if (stop_ || num_begun_ == table_.entries().size()) return;
      const size_t i = num_begun_++;
      const WeightEntry& entry = table_.entries()[i];
      ahead_ += entry.bytes();
      lock.unlock();
      Loaded loaded = read(entry);
      lock.lock();
      ready_.emplace(i, std::move(loaded));
      changed_.notify_all();
    }
  }

  // Whether the next weight may be read: with those that nobody has taken yet it is within kReadAheadBytes, or there are
  // none.
  bool has_room() const { return ahead_ == 0 || ahead_ + table_.entries()[num_begun_].bytes() <= kReadAheadBytes; }

  Loaded read(const WeightEntry& entry) const {
    try {
      WeightSource& source = table_.source();
      if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what))
        return check_floats_ ? source.read(matrix->request) : source.read_without_floats_check(matrix->request);
      return source.read_vector(std::get<VectorRequest>(entry.what));
    } catch (...) {
      return std::current_exception();
    }
  }

  const WeightTable& table_;
  const bool check_floats_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  size_t num_begun_ = 0, num_taken_ = 0;
  int64_t ahead_ = 0;  // bytes of weights that are begun and not taken
  std::map<size_t, Loaded> ready_;
  bool stop_ = false;
  std::vector<std::jthread> threads_;  // begin when all else is there
};

}  // namespace

int64_t largest_load(const WeightTable& table) {
  const std::span<const WeightEntry> entries = table.entries();
  struct Ahead {
    int64_t next = 0, all = 0;  // the bytes of the weight that follows, and of all that do

    void add(int64_t bytes) {
      next = bytes;
      all += bytes;
    }
    int64_t largest() const { return std::max(next, std::min(all, kReadAheadBytes)); }
  } ahead, copied;  // copied: what the file has of those that are not read as they are
  int64_t largest = 0;
  for (size_t i = entries.size(); i-- > 0;) {
    const int64_t bytes = entries[i].bytes();
    const auto* matrix = std::get_if<MatrixEntry>(&entries[i].what);
    if (matrix != nullptr && matrix->info.is_copied) copied.add(bytes);
    largest = std::max(largest, bytes + ahead.largest() + copied.largest());
    ahead.add(bytes);
  }
  return largest;
}

void load_weights(const WeightTable& table, const WeightSink& sink,
                  const std::function<void(int64_t, int64_t)>& progress) {
  int64_t done = 0, all = 0;
  for (const WeightEntry& entry : table.entries()) all += entry.bytes();
  Readers readers(table, !sink.checks_floats);
  for (int i = 0; i < static_cast<int>(table.entries().size()); i++) {
    const WeightEntry& entry = table.entries()[static_cast<size_t>(i)];
    {
      const Loaded loaded = readers.take();
      if (const auto* weight = std::get_if<CanonicalWeight>(&loaded)) {
        try {
          sink.matrix({i}, *weight);
        } catch (const NotFinite&) {
          throw;
        } catch (const InputError& error) {  // a backend does not know the weight's name
          throw_input_error("{}: {}", entry.name(), error.what());
        }
      } else {
        sink.vector({i}, std::get<std::vector<float>>(loaded));
      }
    }
    done += entry.bytes();
    if (progress) progress(done, all);
  }
}

}  // namespace nibble
