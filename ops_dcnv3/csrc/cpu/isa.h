// Choice of the instruction set at run time: one portable library holds each kernel once per instruction set.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace dcnv3::cpu {

enum class Isa { baseline, avx2, avx512 };

#if defined(__x86_64__)
constexpr const char* kIsas = "avx512 avx2 baseline";

inline Isa best_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
}
#else
constexpr const char* kIsas = "baseline";

inline Isa best_isa() { return Isa::baseline; }
#endif

inline const char* name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

// DCNV3_CPU_ISA asks for a lesser set than the best: so the tests reach every version on one machine.
inline Isa choose_isa() {
  const Isa best = best_isa();
  const char* wish = std::getenv("DCNV3_CPU_ISA");
  if (wish == nullptr || *wish == '\0') {
    return best;
  }
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa <= best && std::string(wish) == name(isa)) {
      return isa;
    }
  }
  throw std::runtime_error(
      std::string("DCNV3_CPU_ISA must be one of ") + kIsas + " and supported by this machine (at best " + name(best) +
      "), got " + wish);
}

inline Isa current_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

}  // namespace dcnv3::cpu
