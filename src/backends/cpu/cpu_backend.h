// The CPU backend: weights in 16 interleaved rows, activations in 15 bits or 8, a pool of workers with a barrier between
// phases, kernels chosen once for the instruction sets that the machine has.
#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/activations.h"
#include "backends/cpu/roof.h"
#include "base/worker_pool.h"
#include "ops/backend.h"

namespace nibble {

// The workers of `teams`, the calling thread among them: each reads weights of its node's memory. Integer kernels round
// activations to `activation_bits`, 15 or 8; throws InputError for another number. The read bandwidth is measured on a
// buffer of `roof_bytes` (roof.h).
std::unique_ptr<Backend> make_cpu_backend(std::vector<WorkerTeam> teams, int activation_bits = kActivationBits,
                                          int64_t roof_bytes = read_roof_bytes(0));
// The same with one team of `num_threads` workers.
std::unique_ptr<Backend> make_cpu_backend(int num_threads, int activation_bits = kActivationBits);

}  // namespace nibble
