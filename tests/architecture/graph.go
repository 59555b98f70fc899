package architecture

// module is the import path of the tree's root.
const module = "github.com/sallyport/sallyport"

// A rule says what the packages that match from may import of this module. "x/..." is x and everything below it. Of several
// matching rules the one with the longest from counts; a package that no rule matches may not exist.
//
// Test files are free of these rules: a test of the storefront may run a real vault. The walls below hold for all files
// unless they say otherwise.
type rule struct {
	from string
	to   []string
}

// graph is section 9 of the design.
var graph = []rule{
	{"policies", []string{"policies/envelope"}},
	{"policies/redact", nil}, // how secrets print: everybody's but the token's and the log's, which import nothing
	{"policies/envelope", []string{"policies/redact"}},
	{"policies/evidence", []string{"policies", "policies/envelope"}},
	{"policies/links", []string{"policies"}},
	{"policies/names", []string{"policies", "policies/envelope"}},
	{"policies/consent", []string{"policies"}},
	{"policies/freeze", []string{"policies", "policies/envelope"}},
	{"policies/registry", []string{"policies", "policies/consent"}},
	{"policies/deposit", []string{"policies", "policies/consent", "policies/envelope"}},
	{"policies/succession", []string{"policies", "policies/envelope"}},
	{"policies/pairing", []string{"policies"}},
	{"policies/problem", []string{"policies", "policies/evidence"}},
	{"policies/writing", []string{"policies"}},
	{"policies/guardrails/...", []string{"policies", "policies/envelope", "policies/guardrails/..."}},

	{"pkcs11", []string{"pkcs11/internal/..."}},
	{"pkcs11/internal/...", []string{"pkcs11/internal/..."}},
	{"pkcs11/internal/cryptoki", nil},

	// Hardware profiles and ceremony; the scheme lends the ceremony its X-Wing keys.
	{"hardware/...", []string{"hardware/...", "pkcs11", "policies/...", "vault/pre"}},
	// Two readers of what others wrote, without cgo and without the token.
	{"hardware/pkcs11uri", nil},
	{"hardware/hashicorp", []string{"policies/redact"}},

	{"vault/pre", []string{"policies", "policies/redact", "vault/pre/internal/..."}},
	{"vault/pre/password", []string{"policies", "policies/redact", "vault/pre/internal/..."}},
	{"vault/pre/internal/...", []string{"vault/pre/internal/..."}},
	{"vault/keylog", nil},
	{"vault/keylog/tiles", []string{"policies", "policies/evidence", "vault/keylog"}},
	{"vault/intact", nil},  // knows Badger's files and nothing else, so both sides may use it
	{"vault/sockets", nil}, // knows TCP and nothing else: the same
	{"vault/gate", nil},    // bounds of connections, for every listener
	// A witness may be another organisation's: it knows documents and nothing of a vault.
	{"vault/witness", []string{"policies/...", "vault/gate"}},
	{"vault/cmd/sallyport-witness", []string{"policies/...", "vault/gate", "vault/sockets", "vault/witness"}},
	// The key server is a process beside the vault, and shares no state with it. Devices import its api.
	{"vault/keyserver/api", []string{"policies/...", "vault/pre/password"}},
	{"vault/keyserver", []string{"policies/...", "vault/gate", "vault/keylog", "vault/keyserver/api", "vault/pre/password"}},
	{"vault/cmd/sallyport-keyserver", []string{"hardware/...", "pkcs11", "policies/...", "vault/gate", "vault/keylog", "vault/keyserver", "vault/sockets"}},
	{"vault/audit/...", []string{"policies/...", "vault/audit/..."}}, // shares nothing with the vault but the documents
	{"vault/api", []string{"policies/..."}},
	{"vault/client", []string{"policies/...", "vault/api", "vault/sockets"}},
	{"vault/internal/...", []string{"policies/...", "vault", "vault/api", "vault/gate", "vault/intact", "vault/internal/...", "vault/keylog", "vault/pre"}},
	{"vault", []string{"policies/...", "vault/api", "vault/internal/...", "vault/keylog", "vault/pre"}},
	{"vault/cmd/...", []string{"hardware/...", "pkcs11", "policies/...", "vault", "vault/api", "vault/internal/...", "vault/keylog", "vault/keylog/tiles", "vault/pre", "vault/sockets", "vault/cmd/..."}},

	{"storefront/api", []string{"policies/..."}},
	{"storefront/internal/...", []string{"policies/...", "storefront", "storefront/api", "storefront/internal/...", "vault/api", "vault/intact"}},
	// Of the scheme the storefront uses what needs no secret: challenges, points, sizes.
	{"storefront", []string{"policies/...", "storefront/api", "storefront/internal/...", "vault/api", "vault/client", "vault/gate", "vault/pre"}},
	{"storefront/cmd/sallyport-storefront", []string{"policies/...", "storefront", "storefront/api", "storefront/internal/...", "vault/client", "vault/gate", "vault/sockets"}},
	// The SDK knows vault/api for the second route, past the storefront.
	{"storefront/client/...", []string{"policies/...", "storefront/api", "storefront/client/...", "vault/api", "vault/keyserver/api", "vault/pre", "vault/pre/password", "vault/sockets"}},
	{"storefront/cmd/sallyport", []string{"policies/...", "storefront/api", "storefront/client/...", "vault/api", "vault/audit/...", "vault/pre", "vault/pre/password"}},

	// Tests drive processes and speak to them through what a stranger could import.
	// The load test's yardstick is the bare loop through the same binding, so it opens the token itself.
	// It measures the key-use log alone too, beside other logs: what a process in between would cost is not what is asked.
	{"tests/load", []string{"hardware", "pkcs11", "policies/...", "storefront/api", "storefront/client/...", "tests/...", "vault/api", "vault/client", "vault/keylog", "vault/pre"}},
	{"tests/model/reference", nil}, // shares nothing with what it judges
	{"tests/...", []string{"policies/...", "storefront/api", "storefront/client/...", "tests/...", "vault/api", "vault/audit/...", "vault/client", "vault/keyserver/api", "vault/pre", "vault/pre/password"}},
}

// A wall keeps an import path, of this module or not, inside some packages, or out of them.
type wall struct {
	why     string
	imports []string // import paths, of this module without its prefix; "x/..." is everything below too
	only    []string // packages that alone may import them
	never   []string // or packages that never may
	tests   bool     // test files too
}

// documents are the packages of signed documents and of the decision about them: bytes in, a verdict out.
var documents = []string{
	"policies", "policies/consent", "policies/deposit", "policies/envelope", "policies/freeze", "policies/guardrails/...", "policies/names", "policies/pairing",
	"policies/registry", "policies/succession", "policies/writing",
}

var walls = []wall{
	{why: "pkcs11/internal/cryptoki is the one door to the PKCS#11 binding", imports: []string{"github.com/miekg/pkcs11"}, only: []string{"pkcs11/internal/cryptoki"}, tests: true},
	{why: "only the binding is written in C", imports: []string{"C"}, only: []string{"pkcs11/internal/cryptoki"}, tests: true},
	{why: "Tessera is what the key-use log is measured and checked against, never a part of it", imports: []string{"github.com/transparency-dev/tessera/..."}, only: []string{"tests/...", "vault/keylog/...", "vault/audit/..."}, tests: true},
	{why: "one package knows Cedar", imports: []string{"github.com/cedar-policy/..."}, only: []string{"policies/guardrails"}, tests: true},
	{why: "one package knows HashiCorp's server", imports: []string{"github.com/hashicorp/..."}, only: []string{"hardware/hashicorp"}, tests: true},
	{why: "documents and decision do no I/O", imports: []string{"os/...", "net", "net/http/...", "io/ioutil", "syscall", "log/...", "golang.org/x/sys/..."}, never: documents},
	{why: "problem documents open nothing", imports: []string{"os/...", "net", "syscall"}, never: []string{"policies/problem"}},
	{why: "the scheme is pure", imports: []string{"os/...", "net/...", "syscall", "log", "time"}, never: []string{"vault/pre/..."}},
	{why: "secret scalars never meet variable-time code", imports: []string{"math/big", "crypto/elliptic", "github.com/cloudflare/circl/group", "github.com/cloudflare/circl/ecc/..."}, never: []string{"vault/pre/..."}},
	{why: "the auditor shares nothing with the vault", imports: []string{"github.com/dgraph-io/...", "github.com/gin-gonic/..."}, never: []string{"vault/audit/..."}},
	{why: "only the vault obeys the operator's rules", imports: []string{"policies/guardrails/..."}, only: []string{"policies/guardrails/...", "vault/...", "hardware/...", "tests/vectors", "tests/recheck"}},
	{why: "encoding/json takes a member twice and in any case", imports: []string{"encoding/json"}, never: []string{"policies/...", "vault", "vault/api", "vault/internal/...", "vault/pre/...", "storefront", "storefront/api", "storefront/client"}},
	{why: "storefront and SDK build without cgo", imports: []string{"pkcs11/...", "hardware/..."}, never: []string{"policies/...", "storefront/...", "vault", "vault/pre/...", "vault/keylog", "vault/api", "vault/client", "vault/internal/...", "vault/audit/..."}},
}

// reach says which packages may reach another over any number of imports, test files apart. only holds the packages that may;
// with never, all others may.
var reach = []wall{
	{why: "only the vault daemon and the operator's commands need cgo", imports: []string{"pkcs11/internal/cryptoki"}, only: []string{"pkcs11/...", "hardware/...", "vault/cmd/...", "tests/load"}},
	{why: "a witness shares nothing with the vault, and needs no token", imports: []string{"vault", "vault/internal/...", "vault/keylog/...", "pkcs11/...", "hardware/..."}, only: []string{"vault", "vault/internal/...", "vault/keylog/...", "vault/keyserver", "vault/cmd/sallyport-vault", "vault/cmd/sallyport-keyserver", "pkcs11/...", "hardware/...", "tests/load"}},
	{why: "the PIN's way from HashiCorp Vault is the vault daemon's", imports: []string{"hardware/hashicorp"}, only: []string{"hardware/hashicorp", "vault/cmd/sallyport-vault"}},
	{why: "the storefront never compiles against the vault", imports: []string{"vault", "vault/internal/...", "vault/keylog/...", "vault/keyserver"}, only: []string{"vault/...", "tests/load"}},
}

// calls that some packages may not make, test files apart: package path and function.
var forbiddenCalls = []struct {
	why, path, name string
	in              []string
}{
	{"a decision reads no clock", "time", "Now", documents},
	{"a decision reads no clock", "time", "Since", documents},
}

// forbiddenNames may not be used as a selector: the variable-time inverse of filippo.io/bigmod.
var forbiddenNames = map[string][]string{"InverseVarTime": {"vault/pre/..."}}

// topLevel is fixed by the user. Dot files come besides.
var (
	topFolders = []string{"hardware", "pkcs11", "policies", "storefront", "tests", "vault"}
	topFiles   = []string{"README.md", "go.mod", "go.sum"}
)

// badPackages are names that become a place for everything, or that hold doubles of real parts.
var badPackages = []string{"common", "fake", "fakes", "helper", "helpers", "misc", "mock", "mocks", "shared", "stub", "stubs", "testutil", "types", "util", "utils"}

// maxExported bounds the names that a package exports: types, functions, variables, and constants, where the constants of one
// type declared in one group are one name, its enumeration. Packages under an internal folder are no API and are not counted.
const maxExported = 96

// moreExported are the packages that may export more, and how many. The SDK has an error for each thing that a person must be told apart: what the vault itself says is none of the refusals that a storefront can make up.
var moreExported = map[string]int{"storefront/client": 2}
