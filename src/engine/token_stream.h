// The tokens of an answer, one after the other. Where the backend chooses tokens itself (CompiledStep::run_ahead), they are
// decoded some at a time, and are the same as if each had been sampled on the host.
#pragma once

#include <span>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"

namespace nibble {

class TokenStream {
 public:
  // Both outlive the stream. Meanwhile the session is the stream's: it may be ahead of the tokens that were asked for, and
  // has forgotten the others when the stream ends.
  TokenStream(Session& session, Sampler& sampler) : session_(session), sampler_(sampler) {}
  TokenStream(const TokenStream&) = delete;
  TokenStream& operator=(const TokenStream&) = delete;
  ~TokenStream() { session_.truncate(length()); }

  // Puts `token`, the first or what came last, into the cache, and returns the one after it. `num_wanted`, at least 1, says
  // how many more will be asked for at most. There is a position for it: length() is below the session's max_len().
  int32_t next(int32_t token, int64_t num_wanted);

  // Positions in use up to and with the last token that was put in.
  int64_t length() const { return session_.length() - static_cast<int64_t>(ahead_.size()); }

 private:
  bool run_ahead(int32_t token, int64_t num_wanted);

  Session& session_;
  Sampler& sampler_;
  std::vector<int32_t> ahead_;  // chosen and not yet asked for, the next one last
  std::vector<int32_t> chosen_;
  int64_t at_once_ = 1 << 30;  // how many it takes: fewer after a choice that the device had to leave to the host
  int64_t pause_ = 0;          // tokens until it tries again
};

}  // namespace nibble
