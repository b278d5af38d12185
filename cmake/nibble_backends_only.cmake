# The way from base to the backends of the CPU, with their tests, for a machine of which there are no libraries here: fmt's
# is made from its headers, GoogleTest is built from source, and what needs another library, or reads files, is left out.
add_library(nibble_fmt STATIC ${CMAKE_CURRENT_LIST_DIR}/fmt_without_library.cc)
target_compile_options(nibble_fmt PRIVATE -O0)
add_library(fmt::fmt ALIAS nibble_fmt)

foreach(folder base formats weights ops backends/reference backends/cpu)
  add_subdirectory(src/${folder})
endforeach()

if(NIBBLE_BUILD_TESTS)
  set(NIBBLE_GOOGLETEST "/usr/src/googletest/googletest" CACHE PATH "GoogleTest's source")
  add_library(gtest_main STATIC ${NIBBLE_GOOGLETEST}/src/gtest-all.cc ${NIBBLE_GOOGLETEST}/src/gtest_main.cc)
  target_include_directories(gtest_main SYSTEM PUBLIC ${NIBBLE_GOOGLETEST}/include PRIVATE ${NIBBLE_GOOGLETEST})
  target_link_libraries(gtest_main PUBLIC Threads::Threads)
  target_compile_options(gtest_main PRIVATE -O0)
  add_library(GTest::gtest_main ALIAS gtest_main)
  enable_testing()
  add_subdirectory(tests/backends)
endif()
