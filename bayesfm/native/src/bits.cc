// What jax.random makes of a threefry key: 32 random bits per number, and further keys. XLA compiles a loop of its own for every
// place that asks for random numbers, which takes longer than all the rest of a sweep.
#include "bits.h"

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {

void random_bits_of(uint32_t key0, uint32_t key1, uint32_t* out, int64_t lo, int64_t hi) {
  for (int64_t first = lo; first < hi; first += W<float>) {
    const Bits bits = random_bits({key0, key1}, first);
    for (int64_t i = first; i < std::min<int64_t>(hi, first + W<float>); ++i) out[i] = bits[i - first];
  }
}

void random_keys(uint32_t key0, uint32_t key1, uint32_t first, uint32_t* out, int64_t lo, int64_t hi) {
  for (int64_t i = lo; i < hi; ++i) {
    const Key next = derived({key0, key1}, first + static_cast<uint32_t>(i));
    out[2 * i] = next.first;
    out[2 * i + 1] = next.second;
  }
}

}  // namespace bayesfm::ISA
