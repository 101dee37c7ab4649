#include "norm_silu_kernels.h"

#include <array>
#include <atomic>
#include <cstring>

namespace torch_bridge::kernels {

extern const Machine plain;
#if defined(__x86_64__)
extern const Machine avx2;
extern const Machine avx512;
#endif

namespace {

// The best one first.
constexpr std::array MACHINES = {
#if defined(__x86_64__)
    &avx512, &avx2,
#endif
    &plain};

bool known([[maybe_unused]] const Machine* machine) {
#if defined(__x86_64__)
  if (machine == &avx512) {
    return __builtin_cpu_supports("x86-64-v4");
  }
  if (machine == &avx2) {
    return __builtin_cpu_supports("x86-64-v3");
  }
#endif
  return true;
}

const Machine* best() {
  for (const auto* machine : MACHINES) {
    if (known(machine)) {
      return machine;
    }
  }
  return &plain;
}

std::atomic<const Machine*>& chosen() {
  static std::atomic<const Machine*> machine = best();
  return machine;
}

} // namespace

const Machine& machine() {
  return *chosen();
}

bool use_machine(const char* name) {
  for (const auto* machine : MACHINES) {
    if (std::strcmp(machine->name, name) == 0 && known(machine)) {
      chosen() = machine;
      return true;
    }
  }
  return false;
}

} // namespace torch_bridge::kernels
