# nibble_metal_kernels(NAME file.metal...): an object library of shaders that run on the executor (docs/simt.md). A program
# that links it finds their kernels with simt::make_pipeline. What Metal's compiler would refuse fails here, too, as far as we
# can tell. Needs Clang.
#
# NIBBLE_SIMT: whether this build has the executor, for the tests of shaders, and as the Metal backend's device. It needs Clang;
# on macOS the GPU itself takes its place.
if(NOT APPLE AND (NIBBLE_BUILD_TESTS OR NIBBLE_METAL) AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(NIBBLE_SIMT ON)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
else()
  set(NIBBLE_SIMT OFF)
  if(NIBBLE_BUILD_TESTS AND NOT APPLE)
    message(STATUS "Shaders and the executor are not tested: that needs Clang, not ${CMAKE_CXX_COMPILER_ID}")
  endif()
endif()
set(nibble_translate ${CMAKE_CURRENT_LIST_DIR}/../src/simt/metal)
if(NIBBLE_SIMT)  # what all checks of shaders read
  set(nibble_checked ${CMAKE_CURRENT_BINARY_DIR}/shader_check.pch)
  add_custom_command(
    OUTPUT ${nibble_checked}
    COMMAND Python3::Interpreter -B ${nibble_translate}/translate.py ${CMAKE_CXX_COMPILER} --precompile ${nibble_checked}
            ${nibble_checked}.d -I${PROJECT_SOURCE_DIR}/src
    DEPENDS ${nibble_translate}/translate.py
    DEPFILE ${nibble_checked}.d
    COMMENT "Precompiling what checks of shaders read"
    VERBATIM)
  add_custom_target(nibble_shader_check DEPENDS ${nibble_checked})
endif()

function(nibble_metal_kernels name)
  set(sources)
  foreach(file IN LISTS ARGN)
    get_filename_component(stem ${file} NAME_WE)
    set(output ${CMAKE_CURRENT_BINARY_DIR}/${stem}.metal.cc)
    add_custom_command(
      OUTPUT ${output}
      COMMAND Python3::Interpreter -B ${nibble_translate}/translate.py ${CMAKE_CXX_COMPILER}
              ${CMAKE_CURRENT_SOURCE_DIR}/${file} ${output} ${output}.d ${nibble_checked} -I${PROJECT_SOURCE_DIR}/src
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file} ${nibble_translate}/translate.py ${nibble_translate}/msl_tokens.py
              ${nibble_translate}/msl_rules.py ${nibble_checked} nibble_shader_check
      DEPFILE ${output}.d
      COMMENT "Translating ${file}"
      VERBATIM)
    list(APPEND sources ${output})
  endforeach()
  nibble_metal_objects(${name} ${sources})
endfunction()

# nibble_metal_objects(NAME file.cc...): the same of shaders that are translated already.
function(nibble_metal_objects name)
  add_library(${name} OBJECT ${ARGN})
  target_link_libraries(${name} PUBLIC nibble_simt PRIVATE nibble_flags)
  if(NIBBLE_PRECOMPILE_HEADERS)
    target_precompile_headers(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src/simt/metal/msl.h)
  endif()
  # Messages name files of the source tree, wherever it lies. Kernels read halves and bytes as uint4.
  target_compile_options(${name} PRIVATE -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/= -fno-strict-aliasing
    -Xclang -ffloat16-excess-precision=none
    -w)  # translate.py's pass that checks has warned
  if(NIBBLE_SANITIZE MATCHES address)
    # Else each fiber keeps the locals of its calls on a second stack, which takes a quarter of the time.
    target_compile_options(${name} PRIVATE -fsanitize-address-use-after-return=never)
  endif()
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(${name} PRIVATE -march=x86-64-v3)  # without F16C each half is converted by a call: 30 times slower
  endif()
endfunction()
