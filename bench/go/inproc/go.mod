module inproc

go 1.21
