#include "engine/token_stream.h"

#include <algorithm>

#include "base/naming.h"

namespace nibble {

namespace {

constexpr int64_t kPause = 32;

}  // namespace

int32_t TokenStream::next(int32_t token, int64_t num_wanted) {
  if (ahead_.empty() && !run_ahead(token, num_wanted))
    return naming(session_.engine().checkpoint().path.native(),
                  [&] { return sampler_.sample(session_.decode(token)); });
  const int32_t next = ahead_.back();
  ahead_.pop_back();
  return next;
}

bool TokenStream::run_ahead(int32_t token, int64_t num_wanted) {
  const std::optional<TokenChoice> choice = sampler_.choice();
  const int64_t count = std::min({num_wanted, session_.max_ahead(), at_once_});
  if (!choice || count == 0) return false;
  if (pause_ > 0) {
    pause_--;
    return false;
  }
  chosen_.resize(static_cast<size_t>(count));
  const int64_t num_chosen = session_.decode_ahead(token, *choice, sampler_.draws(count), chosen_);
  sampler_.use_draws(num_chosen);
  ahead_.assign(chosen_.rend() - num_chosen, chosen_.rend());
  if (num_chosen == count) {
    at_once_ = 2 * count;
  } else {
    at_once_ = std::max<int64_t>(num_chosen, 1);
    pause_ = num_chosen == 0 ? kPause : 1;
  }
  return num_chosen > 0;
}

}  // namespace nibble
