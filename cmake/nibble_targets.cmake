# Flags that every target of this project is built with, apart from those of its users. Programs are compiled as libraries are,
# whose precompiled headers they share.
add_library(nibble_flags INTERFACE)
target_compile_options(nibble_flags INTERFACE -Wall -Wextra -Wshadow -Wno-missing-field-initializers -fPIC)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(nibble_flags INTERFACE -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow)  # it warns of its own std::string
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  # Else the compiler fuses multiplications and additions as it likes, and what is quantised differs from machine to machine.
  target_compile_options(nibble_flags INTERFACE -ffp-contract=off)
endif()
if(NIBBLE_SANITIZE)
  # Without what AddressSanitizer finds as well, where it is used: those checks take long to compile.
  target_compile_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer
                                                -fno-sanitize-recover=all -fno-sanitize=null,object-size)
  target_compile_definitions(nibble_flags INTERFACE NIBBLE_SANITIZED)
  target_link_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE})
endif()

if(NIBBLE_FUZZ)
  # libFuzzer learns which code an input reaches, but not of what computes, where bytes choose no ways, nor of tests. All targets have
  # these options, so that they share precompiled headers.
  foreach(root ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
    foreach(files src/backends/* src/simt/* apps/* tests/*_test*)
      string(APPEND without_coverage "src:${root}/${files}\n")
    endforeach()
  endforeach()
  set(coverage_list ${PROJECT_BINARY_DIR}/without_coverage.txt)
  file(CONFIGURE OUTPUT ${coverage_list} CONTENT "${without_coverage}" @ONLY)
  target_compile_options(nibble_flags INTERFACE -fsanitize=fuzzer-no-link
                                                -fsanitize-coverage-ignorelist=${coverage_list})
  target_link_options(nibble_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# What only parses options or prints is not worth the optimiser's time, and what only tests even less: a third of a
# build's, and with sanitizers, where the same goes for what reads files, half of it.
set(nibble_light_options $<$<CONFIG:Release>:-O1>)
if(NIBBLE_SANITIZE)
  list(APPEND nibble_light_options -O0)
endif()

if(NOT NIBBLE_BACKENDS_ONLY)  # those read no JSON
  set(nibble_json_header ${PROJECT_SOURCE_DIR}/src/base/json.h)
endif()

# nibble_precompile(TARGET [header...]): the headers that most files need, and these, are read once: the first target with a list
# and options reads them, later ones share the result. They depend on the first then, so that one should come first that is
# built whenever they are. Clang does not mind how much is optimised, but whether anything is.
function(nibble_precompile target)
  if(NOT NIBBLE_PRECOMPILE_HEADERS)
    return()
  endif()
  get_target_property(options ${target} COMPILE_OPTIONS)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(level optimised)
    if("-O0" IN_LIST options)
      set(level plain)
    endif()
    list(FILTER options EXCLUDE REGEX "-O[0-3]")
    list(PREPEND options ${level})
  endif()
  set(key "nibble_precompiled_${options}_${ARGN}")
  get_property(owner GLOBAL PROPERTY "${key}")
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE <algorithm> <filesystem> <functional> <map> <memory> <random> <string> <thread>
                              <unordered_map> <variant> <vector> <fmt/format.h> ${nibble_json_header} ${ARGN})
    set_property(GLOBAL PROPERTY "${key}" ${target})
  endif()
endfunction()

# nibble_unity(TARGET): its files may be compiled together; names in their anonymous namespaces must differ.
function(nibble_unity target)
  if(NIBBLE_UNITY_BUILD)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 24)
  endif()
endfunction()

# nibble_library(NAME DEPENDS folder... LIBRARIES target... SOURCES file...): the target of one folder of src/.
# DEPENDS are folders to the left of this one; tests/include_arrows.py holds the includes to the same list.
function(nibble_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES;SOURCES" ${ARGN})
  add_library(nibble_${name} STATIC ${ARG_SOURCES})
  add_library(nibble::${name} ALIAS nibble_${name})
  target_compile_features(nibble_${name} PUBLIC cxx_std_20)
  target_include_directories(nibble_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                                   $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                                   $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  list(TRANSFORM ARG_DEPENDS PREPEND nibble_)
  target_link_libraries(nibble_${name} PUBLIC ${ARG_DEPENDS} ${ARG_LIBRARIES} PRIVATE $<BUILD_INTERFACE:nibble_flags>)
  set(light checkpoint models engine metal)
  if(NIBBLE_SANITIZE MATCHES thread)
    list(APPEND light weights)  # its tests read few
  endif()
  if(NIBBLE_SANITIZE AND name IN_LIST light)
    target_compile_options(nibble_${name} PRIVATE ${nibble_light_options})
  endif()
  nibble_precompile(nibble_${name})
  set_target_properties(nibble_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY nibble_libraries nibble_${name})
endfunction()

# nibble_test_code(TARGET COMPUTES): what the code of all tests is built with. COMPUTES: it has enough to do to be optimised.
function(nibble_test_code target computes)
  target_link_libraries(${target} PRIVATE GTest::gtest_main nibble_flags)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  if(computes AND NOT NIBBLE_SANITIZE MATCHES thread)  # what threads do is in the libraries
    target_compile_options(${target} PRIVATE -O1)
  else()
    target_compile_options(${target} PRIVATE -O0)
  endif()
  target_compile_definitions(${target} PRIVATE NIBBLE_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                                               NIBBLE_FIXTURES="${PROJECT_SOURCE_DIR}/../shared/fixtures")
  nibble_precompile(${target} <gtest/gtest.h>)
endfunction()

# nibble_test(NAME [COMPUTES] [COST seconds] DEPENDS folder... SOURCES file...): one GoogleTest program, one CTest entry. COST: about
# how long it takes, if it takes long; then it starts early, so that no processor is idle beside it at the end.
function(nibble_test name)
  cmake_parse_arguments(ARG "COMPUTES" "COST" "DEPENDS;LIBRARIES;SOURCES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS PREPEND nibble_)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} ${ARG_LIBRARIES})
  nibble_test_code(${name} ${ARG_COMPUTES})
  add_test(NAME ${name} COMMAND ${name})
  if(ARG_COST)
    set_tests_properties(${name} PROPERTIES COST ${ARG_COST})
  endif()
endfunction()
