# Linux on AArch64, from any other machine: Clang with Debian's libraries for cross-compiling, programs run by qemu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-fuse-ld=lld -static")  # programs that need no other files
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)          # the environment's QEMU_CPU names the processor
