# Builds SOURCE by what asio_pulse.pc says, the way a shell user does, and runs it.
file(GLOB_RECURSE pc "${PREFIX}/*/asio_pulse.pc")
cmake_path(GET pc PARENT_PATH pc_dir)
set(ENV{PKG_CONFIG_PATH} "${pc_dir}")
set(ENV{PKG_CONFIG} "${PKG_CONFIG}")
set(ENV{CXX} "${CXX}")
execute_process(
  COMMAND
    sh -c [[exec "$CXX" -std=c++20 "$1" -o "$2" $("$PKG_CONFIG" --cflags --libs asio_pulse)]] sh
    "${SOURCE}" "${OUTPUT}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${OUTPUT}" COMMAND_ERROR_IS_FATAL ANY)
