// Package stage sets up a whole Sallyport for the quickstart, the end-to-end tests and the load tests: it builds the commands, makes a throwaway
// SoftHSM token, runs the ceremony, starts vault and storefront as processes on loopback, and runs the sallyport command
// against them. It drives real processes through their commands, files and ports and knows nothing of their insides.
//
// A stage is a folder. Everything in it is throwaway: development keys, PINs that lie beside the token, certificates that
// nobody should trust. Close ends the processes; the folder is the caller's.
package stage
