# Builds the two consumers in SOURCE with the flags from the .pc files, as in a shell, and runs them.
file(GLOB_RECURSE pc "${PREFIX}/*/asio_pulse.pc")
cmake_path(GET pc PARENT_PATH pc_dir)
set(ENV{PKG_CONFIG_PATH} "${pc_dir}")
set(ENV{PKG_CONFIG} "${PKG_CONFIG}")
set(ENV{CXX} "${CXX}")
function(use package source)
  execute_process(
    COMMAND
      sh -c [[exec "$CXX" -std=c++20 "$1" -o "$2" $("$PKG_CONFIG" --cflags --libs "$3")]] sh "${SOURCE}/${source}"
      "${OUTPUT}" ${package} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${OUTPUT}" COMMAND_ERROR_IS_FATAL ANY)
endfunction()
use(asio_pulse main.cpp)
use(asio_pulse_analysis analysis.cpp)
