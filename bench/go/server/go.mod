module towpath-bench/server

go 1.23
