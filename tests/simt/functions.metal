// One of each function that the executor gives to shaders; each kernel writes 1 where all is well.
#include <metal_stdlib>
#include <metal_atomic>
#include <metal_simdgroup_matrix>
using namespace metal;

kernel void simdgroup_functions(device float* out, uint i [[thread_position_in_grid]],
                                uint lane [[thread_index_in_simdgroup]]) {
  bool ok = simd_max(lane) == 31 && simd_min(float(lane) - 3) == -3;
  ok &= simd_sum(lane) == 496 && simd_sum(half(1)) == 32 && simd_product(lane == 4 ? 3 : 1) == 3;
  ok &= simd_and(lane | 8) == 8 && simd_or(lane & 5) == 5;
  ok &= simd_prefix_exclusive_sum(lane) == lane * (lane - 1) / 2 || lane == 0;
  ok &= simd_prefix_inclusive_sum(float(lane)) == lane * (lane + 1) / 2;
  ok &= simd_broadcast(lane, 7) == 7 && simd_broadcast_first(lane) == 0;
  ok &= simd_shuffle(lane, 31 - lane) == 31 - lane && simd_shuffle_xor(lane, 5) == (lane ^ 5);
  ok &= simd_shuffle_down(lane, 4) == lane + 4 || lane >= 28;
  ok &= simd_shuffle_up(half2(lane, 1), 1).x == (lane == 0 ? 0 : lane - 1);
  ok &= quad_sum(lane % 4) == 6 && quad_broadcast(lane, 2) == (lane & ~3u) + 2;
  ok &= simd_any(lane == 9) && !simd_all(lane == 9) && simd_all(lane < 32) && simd_is_first() == (lane == 0);
  ok &= ulong(simd_ballot(lane % 2 == 1)) == 0xAAAAAAAAu;
  simdgroup_barrier(mem_flags::mem_none);
  out[i] = ok;
}

// Where lanes diverge a function sees those that are with it.
kernel void diverged_functions(device float* out, uint i [[thread_position_in_grid]],
                               uint lane [[thread_index_in_simdgroup]]) {
  float sum;
  if (lane < 10)
    sum = simd_sum(1.0f);
  else
    sum = simd_sum(1.0f);
  out[i] = sum == (lane < 10 ? 10 : 22);
}

// A loop that some lanes leave early.
kernel void diverged_loop(device float* out, uint i [[thread_position_in_grid]],
                          uint lane [[thread_index_in_simdgroup]]) {
  uint sum = 0;
  for (uint k = 0; k <= lane; ++k) sum += simd_sum(1u);  // 32, 31, … as lanes leave
  uint wanted = 0;
  for (uint k = 0; k <= lane; ++k) wanted += 32 - k;
  out[i] = sum == wanted;
}

kernel void vectors(device float* out, uint i [[thread_position_in_grid]]) {
  const float4 v = float4(float2(1, 2), 3.0f, half(4));
  bool ok = all(v == float4(1, 2, 3, 4)) && dot(v, v) == 30 && v.zw.y == 4;
  ok &= all(float4(half4(1.5h)) == 1.5f) && all(uint2(float2(2.9f, 1)) == uint2(2, 1));
  ok &= as_type<uint>(1.0f) == 0x3F800000 && all(as_type<half2>(0x3C004000u) == half2(2, 1));
  ok &= half(1.0h / 3) == 0.33325h;  // each operation on halves rounds
  ok &= all(select(float2(1, 2), float2(3, 4), float2(0, 1) > 0.5f) == float2(1, 4)) && !any(float2(1, 2) == 3.0f);
  ok &= max(2u, 3u) == 3 && min(float2(1, 5), 3.0f).y == 3 && clamp(7.0f, 0.0f, 5.0f) == 5;
  ok &= extract_bits(0xABCDu, 4, 8) == 0xBC && popcount(0xF0u) == 4 && clz(1u) == 31 && ctz(8u) == 3;
  ok &= fabs(exp(log(2.0f)) - 2) < 1e-6 && rsqrt(4.0f) == 0.5f && precise::sqrt(9.0f) == 3 && fma(2.0f, 3.0f, 1.0f) == 7;
  out[i] = ok;
}

kernel void positions(device float* out, uint3 grid_position [[thread_position_in_grid]],
                      uint2 position [[thread_position_in_threadgroup]], uint3 group [[threadgroup_position_in_grid]],
                      ushort2 size [[threads_per_threadgroup]], uint2 groups [[threadgroups_per_grid]],
                      uint index [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
                      uint simdgroup [[simdgroup_index_in_threadgroup]], uint width [[threads_per_simdgroup]],
                      uint simdgroups [[simdgroups_per_threadgroup]], uint2 threads [[threads_per_grid]]) {
  bool ok = grid_position.x == group.x * size.x + position.x && grid_position.y == group.y * size.y + position.y;
  ok &= index == position.y * size.x + position.x && simdgroup == index / 32 && lane == index % 32 && width == 32;
  ok &= simdgroups == (size.x * size.y + 31u) / 32 && all(threads == groups * uint2(size));
  out[grid_position.y * threads.x + grid_position.x] = ok;
}

// c = a * b and d = a * bᵀ + c, 8×8; and b moved to e by its columns.
kernel void matrices(device const float* a, device const half* b, device float* c, device float* d, device half* e,
                     uint i [[thread_position_in_grid]]) {
  simdgroup_float8x8 left, sum;
  simdgroup_half8x8 right;
  simdgroup_load(left, a, 8);
  simdgroup_load(right, b, 9, ulong2(1, 0));  // rows 9 apart, from the second element on
  simdgroup_multiply(sum, left, right);
  simdgroup_store(sum, c);
  simdgroup_load(right, b, 9, ulong2(1, 0), true);
  simdgroup_multiply_accumulate(sum, left, right, sum);
  simdgroup_store(sum, d);
  simdgroup_store(right, e, 8, ulong2(0, 0), true);
}

kernel void atomics(device atomic_uint* count, device atomic_float* sum, device float* out,
                    uint i [[thread_position_in_grid]]) {
  threadgroup atomic_uint most;
  if (i == 0) atomic_store_explicit(&most, 0, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(sum, 0.5f, memory_order_relaxed);
  atomic_fetch_max_explicit(&most, i, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
  out[i] = atomic_load_explicit(count, memory_order_relaxed) == 64 && atomic_load_explicit(&most, memory_order_relaxed) == 63;
}

constant bool kNegative [[function_constant(0)]];
constant uint kRepeats [[function_constant(1)]];

template <typename T, uint step>
kernel void counts(device T* out [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  out[i] = T(kNegative ? -1 : 1) * T(step * kRepeats);
}
template [[host_name("counts_float_3")]] [[kernel]] decltype(counts<float, 3>) counts<float, 3>;
#define COUNTS(name, T, step) template [[host_name(name)]] [[kernel]] decltype(counts<T, step>) counts<T, step>;
COUNTS("counts_int_5", int, 5)
