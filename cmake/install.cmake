# `cmake --install` puts the library, its public headers, the programs, and a package for find_package(nibble) in place.
include(CMakePackageConfigHelpers)

get_property(nibble_libraries GLOBAL PROPERTY nibble_libraries)
add_library(nibble_all INTERFACE)
add_library(nibble::nibble ALIAS nibble_all)
target_link_libraries(nibble_all INTERFACE nibble_engine nibble_cpu)
set_target_properties(nibble_all PROPERTIES EXPORT_NAME nibble)

install(TARGETS ${nibble_libraries} nibble_all EXPORT nibble_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/nibble DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT nibble_targets NAMESPACE nibble:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/nibbleConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/nibbleConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/nibbleConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nibbleConfig.cmake ${PROJECT_BINARY_DIR}/nibbleConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
if(NIBBLE_BUILD_APPS)
  install(TARGETS nibble bench_gemm_fp4 bench_e2e_decode RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
