// The door to XLA of random numbers.
#include "ffi.h"

namespace bayesfm {
namespace {

// Numbers lo, ..., hi - 1 of every member's stream; one takes some nanoseconds, measured with AVX-512.
template <class F>
void over_numbers(ffi::ThreadPool pool, int64_t members, int64_t size, double nanoseconds, const F& f) {
  const int64_t kPart = static_cast<int64_t>(2e4 / nanoseconds) / 64 * 64, parts = (size + kPart - 1) / kPart;
  run_parts(pool, members * parts, nanoseconds * static_cast<double>(members * size), [&](int64_t i) {
    const int64_t lo = i % parts * kPart;
    f(i / parts, lo, std::min(size, lo + kPart));
  });
}

ffi::Error bits(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto out = a.out<uint32_t>(0, "the bits", {kAny});
  if (!a.wrong().empty()) return refuse(a);
  const RandomBits draw = PICK(chosen.load(), random_bits_of);
  over_numbers(pool, a.members(), out.size, 0.4, [&](int64_t b, int64_t lo, int64_t hi) {
    draw(a.at(key, b)[0], a.at(key, b)[1], a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error keys(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto first = a.in<uint32_t>(1, "the first number", {});
  const auto out = a.out<uint32_t>(0, "the keys", {kAny, 2});
  if (!a.wrong().empty()) return refuse(a);
  const RandomKeys derive = PICK(chosen.load(), random_keys);
  over_numbers(pool, a.members(), out.size / 2, 10, [&](int64_t b, int64_t lo, int64_t hi) {
    derive(a.at(key, b)[0], a.at(key, b)[1], *a.at(first, b), a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error normals(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto out = a.out<float>(0, "the normals", {kAny});
  if (!a.wrong().empty()) return refuse(a);
  const StandardNormals draw = PICK(chosen.load(), standard_normals);
  over_numbers(pool, a.members(), out.size, 0.6, [&](int64_t b, int64_t lo, int64_t hi) {
    draw(a.at(key, b)[0], a.at(key, b)[1], a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error truncated_normals(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto mean = a.in<float>(1, "mean", {kAny});
  const auto lower = a.in<float>(2, "lower", {mean.dim(0)});
  const auto upper = a.in<float>(3, "upper", {mean.dim(0)});
  const auto out = a.out<float>(0, "the draws", {mean.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const TruncatedNormals draw = PICK(chosen.load(), truncated_normals);
  over_numbers(pool, a.members(), out.size, 9, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(mean, b), a.at(lower, b), a.at(upper, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error polya_gammas(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto c = a.in<float>(1, "c", {kAny});
  const auto out = a.out<float>(0, "the draws", {c.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const PolyaGammas draw = PICK(chosen.load(), polya_gammas);
  over_numbers(pool, a.members(), out.size, 11, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(c, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error gammas(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto shape = a.in<float>(1, "the shapes", {kAny});
  const auto out = a.out<float>(0, "the draws", {shape.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const Gammas draw = PICK(chosen.load(), gammas);
  over_numbers(pool, a.members(), out.size, 4, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(shape, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error gamma_sums(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto shape = a.in<float>(1, "b", {kAny});
  const auto c = a.in<float>(2, "c", {shape.dim(0)});
  const auto out = a.out<float>(0, "the draws", {shape.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const GammaSums draw = PICK(chosen.load(), gamma_sums);
  over_numbers(pool, a.members(), out.size, 18, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(shape, b), a.at(c, b), a.at(out, b), out.size}, lo, hi);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace bayesfm

#pragma GCC visibility push(default)
DEFINE_AS(u32, bits, bayesfm::bits);
DEFINE_AS(u32, keys, bayesfm::keys);
DEFINE_AS(f32, normals, bayesfm::normals);
DEFINE_AS(f32, truncated_normals, bayesfm::truncated_normals);
DEFINE_AS(f32, polya_gammas, bayesfm::polya_gammas);
DEFINE_AS(f32, gammas, bayesfm::gammas);
DEFINE_AS(f32, gamma_sums, bayesfm::gamma_sums);
#pragma GCC visibility pop
