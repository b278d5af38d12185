// The loader: one thread reads, the caller's packs.
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <variant>

#include "base/error.h"
#include "weights/weight_table.h"

namespace nibble {

namespace {

using Loaded = std::variant<CanonicalWeight, std::vector<float>>;

// Reads the table's weights ahead of whoever takes them. All calls of the source are made on one thread: importers are
// not made for several.
class Reader {
 public:
  explicit Reader(const WeightTable& table) : table_(table), thread_([this] { run(); }) {}
  ~Reader() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // The next weight. Throws what reading it threw.
  Loaded take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || failure_; });
    if (ready_.empty()) std::rethrow_exception(failure_);
    Loaded loaded = std::move(ready_.front());
    ready_.pop_front();
    return loaded;
  }

  // The weight that was taken last is packed, and not needed any more.
  void done() {
    {
      const std::lock_guard lock(mutex_);
      num_done_++;
    }
    changed_.notify_all();
  }

 private:
  void run() {
    try {
      read_all();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    changed_.notify_all();
  }

  void read_all() {
    const auto entries = table_.entries();
    for (size_t i = 0; i < entries.size(); i++) {
      if (!wait_for_room(i)) return;
      Loaded loaded = read(entries[i]);
      in_flight_ += entries[i].bytes();
      {
        const std::lock_guard lock(mutex_);
        ready_.push_back(std::move(loaded));
      }
      changed_.notify_all();
    }
  }

  // Waits until weight i may be read: with those that are not done it is within kReadAheadBytes, or there are none.
  // False: nobody waits for more weights.
  bool wait_for_room(size_t i) {
    const auto entries = table_.entries();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      for (; num_counted_ < num_done_; num_counted_++) in_flight_ -= entries[num_counted_].bytes();
      return stop_ || num_done_ == i || in_flight_ + entries[i].bytes() <= kReadAheadBytes;
    });
    return !stop_;
  }

  Loaded read(const WeightEntry& entry) const {
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) return table_.source().read(matrix->request);
    return table_.source().read_vector(std::get<VectorRequest>(entry.what));
  }

  const WeightTable& table_;
  size_t num_counted_ = 0;  // of those that are done: no longer in in_flight_
  int64_t in_flight_ = 0;   // bytes that were read and are not done

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::deque<Loaded> ready_;
  size_t num_done_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // begins when all else is there
};

}  // namespace

void load_weights(const WeightTable& table, const WeightSink& sink,
                  const std::function<void(int64_t, int64_t)>& progress) {
  int64_t done = 0, all = 0;
  for (const WeightEntry& entry : table.entries()) all += entry.bytes();
  Reader reader(table);
  for (int i = 0; i < static_cast<int>(table.entries().size()); i++) {
    const WeightEntry& entry = table.entries()[static_cast<size_t>(i)];
    {
      const Loaded loaded = reader.take();
      if (const auto* weight = std::get_if<CanonicalWeight>(&loaded)) {
        try {
          sink.matrix({i}, *weight);
        } catch (const InputError& error) {  // a backend does not know the weight's name
          throw_input_error("{}: {}", entry.name(), error.what());
        }
      } else {
        sink.vector({i}, std::get<std::vector<float>>(loaded));
      }
    }
    reader.done();
    done += entry.bytes();
    if (progress) progress(done, all);
  }
}

}  // namespace nibble
