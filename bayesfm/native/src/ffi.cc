// Which instruction set is in force.
#include "ffi.h"

namespace bayesfm {

std::atomic<Isa> chosen{best_isa()};

}  // namespace bayesfm

#pragma GCC visibility push(default)
// 0, 1, 2: baseline, AVX2, AVX-512. Returns what is in force; refuses what the machine lacks.
extern "C" int bayesfm_isa() { return static_cast<int>(bayesfm::chosen.load()); }
extern "C" int bayesfm_set_isa(int isa) {
  if (isa < 0 || isa > static_cast<int>(bayesfm::best_isa())) return -1;
  bayesfm::chosen.store(static_cast<bayesfm::Isa>(isa));
  return isa;
}
#pragma GCC visibility pop
