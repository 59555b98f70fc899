// Package hosts is the tests of a Sallyport on two machines: vault and storefront each in a network namespace of its own, owners and readers in a
// third, with a link between any two and a firewall on each that lets through what the README names and nothing else. Links go down, packets
// vanish, processes die and hang; everything that runs is real.
//
// It holds no code but tests, which carry the build tag root. They need root, iproute2 and nftables, and fail where those are not.
//
// The namespaces have no names. They live as long as the processes in them, so nothing is left behind, however the tests end.
package hosts
