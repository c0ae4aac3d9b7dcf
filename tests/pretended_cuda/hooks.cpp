// A CUDA that has no device: what PyTorch asks of it before any kernel runs, answered so that fake tensors can say `cuda`.
//
// Two registrations. The guard gives autograd's engine device threads and streams for the device type. The hooks answer
// the questions of dispatch (is there cuDNN, which version, which of its formats), so that layouts and backends are chosen
// as on a real device. Both registries are read once, when PyTorch is loaded, so this library comes before it.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/FakeGuardImpl.h>

namespace {

constexpr int kDevices = 2;
constexpr long kCudnn = 91002;
constexpr long kRuntime = 12080;

using Guard = c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>;
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

} // namespace

namespace at {

struct PretendedHooks final : CUDAHooksInterface {
  explicit PretendedHooks(CUDAHooksArgs) {}

  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }

  DeviceIndex deviceCount() const override { return kDevices; }
  int getNumGPUs() const override { return kDevices; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override {}

  bool hasCuDNN() const override { return true; }
  bool compiledWithCuDNN() const override { return true; }
  bool compiledWithMIOpen() const override { return false; }
  bool supportsDilatedConvolutionWithCuDNN() const override { return true; }
  bool supportsDepthwiseConvolutionWithCuDNN() const override { return true; }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const override { return true; }
  double batchnormMinEpsilonCuDNN() const override { return 0.0; }
  long versionCuDNN() const override { return kCudnn; }
  long versionRuntimeCuDNN() const override { return kCudnn; }
  long versionCUDART() const override { return kRuntime; }

  Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  Generator getNewGenerator(DeviceIndex) const override { return at::detail::createCPUGenerator(); }
};

// The registry makes the hooks by this name, whatever the type behind it is called.
using CUDAHooks = PretendedHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)

} // namespace at
