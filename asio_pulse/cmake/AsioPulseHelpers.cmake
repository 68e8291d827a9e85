# Helper functions of this project's own build. Nothing here is installed.
include_guard(GLOBAL)

# asio_pulse_use_ccache(): compiles through ccache if it is installed and the user has not chosen another
# launcher. Two checkouts of the same sources share results, because paths below the source folder are hashed
# as relative ones. ccache needs a setting for precompiled headers (see "Precompiled headers" in its manual).
function(asio_pulse_use_ccache)
  if(DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    return()
  endif()
  find_program(ASIO_PULSE_CCACHE ccache)
  mark_as_advanced(ASIO_PULSE_CCACHE)
  if(NOT ASIO_PULSE_CCACHE)
    return()
  endif()
  set(launcher "${PROJECT_BINARY_DIR}/ccache_launcher")
  file(
    CONFIGURE
    OUTPUT "${launcher}"
    CONTENT
      [[#!/bin/sh
CCACHE_BASEDIR='@PROJECT_SOURCE_DIR@' CCACHE_NOHASHDIR=1 \
CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime exec '@ASIO_PULSE_CCACHE@' "$@"
]]
    @ONLY)
  file(CHMOD "${launcher}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
                                       WORLD_EXECUTE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${launcher}" PARENT_SCOPE)
endfunction()

# asio_pulse_collect_rarely(): gcc collects the garbage in its own memory only from 400 MB on, and not from 128 MB on.
# That saves 10 to 25 % of the time of a file with many templates.
function(asio_pulse_collect_rarely)
  add_compile_options("$<$<CXX_COMPILER_ID:GNU>:SHELL:--param ggc-min-heapsize=400000>")
endfunction()

# asio_pulse_use_sanitizers(LIST): builds everything, including tests and benches, with -fsanitize=LIST.
function(asio_pulse_use_sanitizers sanitizers)
  if(NOT sanitizers)
    return()
  endif()
  string(REPLACE ";" "," sanitizers "${sanitizers}")
  set(flags -fsanitize=${sanitizers} -fno-omit-frame-pointer)
  if(sanitizers MATCHES "undefined")
    list(APPEND flags -fno-sanitize-recover=undefined)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # In some inlined places gcc 12 takes the address of a thread_local with the initial-exec model for
      # null. If a null pointer is really used, AddressSanitizer still reports SEGV.
      list(APPEND flags -fno-sanitize=null)
    endif()
  endif()
  if(sanitizers MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # TSan does not model Boost.Asio's fences, and gcc warns about each of them.
    list(APPEND flags -Wno-tsan)
  endif()
  add_compile_options(${flags})
  add_link_options(-fsanitize=${sanitizers})
endfunction()

# asio_pulse_permit_unity(TARGET): gcc takes source files that a unity file includes for headers. It must not warn of what is
# wrong only in headers.
function(asio_pulse_permit_unity target)
  target_compile_options(${target} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>")
endfunction()

# asio_pulse_warnings(TARGET): enables the project's warnings, for its own targets only. They are errors if
# CMAKE_COMPILE_WARNING_AS_ERROR is set, as in the presets.
function(asio_pulse_warnings target)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    return()
  endif()
  target_compile_options(
    ${target}
    PRIVATE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wconversion
            -Wsign-conversion
            -Wold-style-cast
            -Wnon-virtual-dtor
            -Woverloaded-virtual
            -Wcast-align
            -Wcast-qual
            -Wformat=2
            -Wdouble-promotion
            -Wundef
            -Wimplicit-fallthrough)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wduplicated-cond -Wlogical-op -Wextra-semi)
    if(CMAKE_UNITY_BUILD)
      asio_pulse_permit_unity(${target})
    endif()
  else()
    target_compile_options(${target} PRIVATE -Wextra-semi -Wunreachable-code)
  endif()
endfunction()

# asio_pulse_setup_library(TARGET EXPORT_NAME E OUTPUT_NAME O [EXPORT SET]): sets what the compiled libraries
# have in common. For users the library is asio_pulse::E. Its public headers are in include/ of its folder.
function(asio_pulse_setup_library target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "EXPORT_NAME;OUTPUT_NAME;EXPORT" "")
  get_target_property(folder ${target} SOURCE_DIR)
  # Position independent even if static, because a shared asio_pulse contains the static hooks library.
  set_target_properties(
    ${target}
    PROPERTIES EXPORT_NAME ${arg_EXPORT_NAME}
               OUTPUT_NAME ${arg_OUTPUT_NAME}
               POSITION_INDEPENDENT_CODE ON
               INSTALL_RPATH "$ORIGIN"  # where the shared libraries that it needs are, too
               VERSION ${PROJECT_VERSION}
               SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${folder}/include>"
                                              "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  asio_pulse_warnings(${target})
  asio_pulse_install_target(${target} ${arg_EXPORT})
  if(ASIO_PULSE_INSTALL)
    install(
      DIRECTORY "${folder}/include/"
      DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
      FILES_MATCHING
      PATTERN "*.hpp"
      PATTERN "*.h")
  endif()
endfunction()

# asio_pulse_read_rooms(FILE): sets asio_pulse_rooms, in the order of the file, and asio_pulse_ROOM_uses for each; see
# the file for its format.
function(asio_pulse_read_rooms file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(STRINGS "${file}" lines REGEX "^[^#]")
  set(rooms "")
  set(key "")
  foreach(line IN LISTS lines)
    if(line MATCHES "^([a-z_]+)$")
      set(room "${CMAKE_MATCH_1}")
      list(APPEND rooms ${room})
      set(${room}_uses "")
    elseif(line MATCHES "^  ([a-z]+) +([^ ].*)$")
      set(key "${CMAKE_MATCH_1}")
      set(values "${CMAKE_MATCH_2}")
    elseif(line MATCHES "^   +([^ ].*)$")
      set(values "${CMAKE_MATCH_1}")
    else()
      message(FATAL_ERROR "${file}: not a room, nor a line of one: ${line}")
    endif()
    if(line MATCHES "^ " AND key STREQUAL "uses")
      separate_arguments(values)
      foreach(used IN LISTS values)
        # A room may use only rooms before it, so there is no cycle.
        if(used STREQUAL room OR NOT used IN_LIST rooms)
          message(FATAL_ERROR "${file}: ${room} uses ${used}, which is no room that stands before it")
        endif()
      endforeach()
      list(APPEND ${room}_uses ${values})
    endif()
  endforeach()
  set(asio_pulse_rooms "${rooms}" PARENT_SCOPE)
  foreach(room IN LISTS rooms)
    set(asio_pulse_${room}_uses "${${room}_uses}" PARENT_SCOPE)
  endforeach()
endfunction()

# asio_pulse_use_rooms(TARGET ROOM...): lets the target's sources include the headers of these rooms in
# asio_pulse/src. Their code is in the library.
function(asio_pulse_use_rooms target)
  foreach(room IN LISTS ARGN)
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/asio_pulse/src/${room}")
  endforeach()
endfunction()

# asio_pulse_bpf_object(SOURCE CLANG SKELETON): compiles X.bpf.c with this clang into the header SKELETON,
# which contains the object; its names begin with X_bpf. The sources declare the types they need, so no kernel
# headers are needed.
function(asio_pulse_bpf_object source clang skeleton)
  get_filename_component(name "${source}" NAME_WE)
  get_filename_component(folder "${skeleton}" DIRECTORY)
  set(object "${folder}/${name}.bpf.o")
  set(module "${PROJECT_SOURCE_DIR}/bpf")
  set(arch arm64)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    set(arch x86)
  endif()
  file(MAKE_DIRECTORY "${folder}")
  file(GLOB headers CONFIGURE_DEPENDS "${module}/src/program/*.h" "${module}/include/asio_pulse/bpf/*.h")
  add_custom_command(
    OUTPUT "${skeleton}"
    COMMAND
      "${clang}" -g -O2 -target bpf -mcpu=v3 -ffreestanding -std=gnu11 -Wall -Wextra -Werror
      -D__TARGET_ARCH_${arch} "-I${module}/include" "-I${module}/src" -idirafter
      "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}" -c "${source}" -o "${object}"
    COMMAND "${ASIO_PULSE_LLVM_STRIP}" -g "${object}"
    # Generated code is not linted.
    COMMAND "${CMAKE_COMMAND}" -E echo "// NOLINTBEGIN" > "${skeleton}"
    COMMAND "${ASIO_PULSE_BPFTOOL}" gen skeleton "${object}" name ${name}_bpf >> "${skeleton}"
    COMMAND "${CMAKE_COMMAND}" -E echo "// NOLINTEND" >> "${skeleton}"
    DEPENDS "${source}" ${headers}
    COMMENT "Building ${name}.bpf.c with ${clang}"
    VERBATIM)
endfunction()

# asio_pulse_add_interface(NAME EXPORT_NAME): adds an interface target that is installed like a library.
function(asio_pulse_add_interface name export_name)
  add_library(${name} INTERFACE)
  add_library(asio_pulse::${export_name} ALIAS ${name})
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${export_name})
  target_compile_features(${name} INTERFACE cxx_std_20)
  asio_pulse_install_target(${name})
endfunction()

# asio_pulse_install_target(TARGET [SET]): installs the target in the export set that asio_pulseConfig.cmake
# reads, or in that of a component.
function(asio_pulse_install_target target)
  if(NOT ASIO_PULSE_INSTALL)
    return()
  endif()
  set(set asio_pulseTargets)
  if(ARGC GREATER 1)
    set(set "${ARGV1}")
  endif()
  install(
    TARGETS ${target}
    EXPORT ${set}
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endfunction()

# asio_pulse_install_package(): installs the package files of CMake and pkg-config, which are relocatable.
function(asio_pulse_install_package)
  include(CMakePackageConfigHelpers)
  set(templates "${PROJECT_SOURCE_DIR}/asio_pulse/cmake")
  set(cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/asio_pulse")

  get_property(have_libdw GLOBAL PROPERTY asio_pulse_have_libdw)
  install(
    EXPORT asio_pulseTargets
    NAMESPACE asio_pulse::
    DESTINATION "${cmake_dir}")
  get_property(have_prometheus GLOBAL PROPERTY asio_pulse_have_prometheus)
  if(have_prometheus)
    install(
      EXPORT asio_pulsePrometheusTargets
      NAMESPACE asio_pulse::
      DESTINATION "${cmake_dir}")
  endif()
  configure_package_config_file(
    "${templates}/asio_pulseConfig.cmake.in" "${PROJECT_BINARY_DIR}/asio_pulseConfig.cmake"
    INSTALL_DESTINATION "${cmake_dir}")
  # Before 1.0 a minor version may change the API.
  write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/asio_pulseConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
  install(FILES "${PROJECT_BINARY_DIR}/asio_pulseConfig.cmake"
                "${PROJECT_BINARY_DIR}/asio_pulseConfigVersion.cmake" DESTINATION "${cmake_dir}")
  if(have_libdw)
    install(FILES "${templates}/Findlibdw.cmake" DESTINATION "${cmake_dir}")
  endif()
  # The compiler plugins' sources: they are built for the user's compiler.
  install(FILES "${templates}/AsioPulseCheckpoints.cmake" DESTINATION "${cmake_dir}")
  install(
    DIRECTORY "${PROJECT_SOURCE_DIR}/asio_pulse/checkpoints"
    DESTINATION "${cmake_dir}"
    USE_SOURCE_PERMISSIONS
    PATTERN "CMakeLists.txt" EXCLUDE)

  set(pkg_config_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
  file(RELATIVE_PATH pc_prefix "/prefix/${pkg_config_dir}" "/prefix")
  string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
  set(pc_definitions "")
  foreach(definition IN ITEMS ASIO_PULSE_TESTABLE_PREEMPTION ASIO_PULSE_ASSERTIONS ASIO_PULSE_LIBCXX)
    if(${definition})
      string(APPEND pc_definitions " -D${definition}=1")
    endif()
  endforeach()
  # Users of a static library have to link what it needs, so that is in Requires and not in Requires.private.
  set(pc_requires "")
  set(pc_requires_private "")
  set(pc_needed "")
  if(NOT ASIO_PULSE_FMT_HEADER_ONLY)
    list(APPEND pc_needed fmt)
  endif()
  if(have_libdw)
    list(APPEND pc_needed libdw libelf)
  endif()
  list(JOIN pc_needed ", " pc_needed)
  if(BUILD_SHARED_LIBS)
    set(pc_requires_private "${pc_needed}")
  else()
    set(pc_requires "${pc_needed}")
  endif()
  foreach(package IN ITEMS asio_pulse asio_pulse_analysis)
    configure_file("${templates}/${package}.pc.in" "${PROJECT_BINARY_DIR}/${package}.pc" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/${package}.pc" DESTINATION "${pkg_config_dir}")
  endforeach()
  # The documentation keeps its folders, because the texts refer to each other, and reports refer to them (`see=`).
  foreach(text IN ITEMS LICENSE README.md ARCHITECTURE.md CHANGELOG.md benches/RESULTS.md benches/peers/README.md
                        asio_pulse/prometheus/README.md asio_pulse/prometheus/grafana/asio-pulse.json
                        asio_pulse/tools/top/README.md)
    cmake_path(GET text PARENT_PATH folder)
    install(FILES "${PROJECT_SOURCE_DIR}/${text}" DESTINATION "${CMAKE_INSTALL_DOCDIR}/${folder}")
  endforeach()
  install(
    DIRECTORY "${PROJECT_SOURCE_DIR}/asio_pulse/docs" "${PROJECT_SOURCE_DIR}/asio_pulse/examples"
    DESTINATION "${CMAKE_INSTALL_DOCDIR}/asio_pulse"
    PATTERN "*.py" EXCLUDE
    PATTERN "__pycache__" EXCLUDE)
endfunction()
