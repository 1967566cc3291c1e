package etcd

import (
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
)

// difference is one between meshbridge and etcd 3.6 that is intended. Every
// comparison of this package accepts those listed here and no other.
type difference struct {
	etcd, meshbridge string // what each does
	why              string // ours is better
	// asEtcd turns an answer of meshbridge into the one that etcd would have
	// given; nil where the test that meets the difference has to do it.
	asEtcd func(answer string) string
}

var (
	// The random requests ask for no such hash, and compact no revision 0.
	hashOfCompaction = difference{
		etcd:       `remembers the hashes that it took in its last ten compactions, and answers HashKV of such a revision as it was before the compaction, also when it is compacted by now; after a compaction at 0, which succeeds once, the hash of the current revision stays that of an empty store`,
		meshbridge: `hashes what is there, and calls a compacted revision compacted`,
		why:        `the members of a cluster compare these hashes; to take them costs a walk over all keys in each compaction`,
	}
	// The random compactions and hashes leave such a revision out.
	keyPutAgain = difference{
		etcd:       `a transaction may delete everything from a key on and put one of these keys; a compaction at its revision then loses the key, and the next read of it stops the server; its hash takes the key for deleted`,
		meshbridge: `keeps the key`,
		why:        `nobody wants to lose a key`,
	}
	// The random transactions have no such flags.
	keepAfterDelete = difference{
		etcd:       `is stopped by a transaction that deletes everything from a key on and puts a later one with ignore_value or ignore_lease`,
		meshbridge: `says that the key is not found`,
		why:        `one request of one client stops the server`,
	}
	headerOfCatchUp = difference{
		etcd:       `sends a watch that catches up responses with the current revision in the header, even when older events are still to come`,
		meshbridge: `has the last revision whose events were sent`,
		why:        `APISIX resumes after the revision in the header, and would miss what had not come yet`,
	}
	headerOfCreation = difference{
		etcd:       `may say that a watch without a start was created at a revision whose events it is still going to send`,
		meshbridge: `sends events after the revision of the creation only, and all of them`,
		why:        `a client that reads at that revision and then follows the watch would apply changes twice`,
	}
	compactedWatch = difference{
		etcd:       `keeps a watch that a compaction has canceled until the client cancels it too, which it answers; until then the stream gets no progress`,
		meshbridge: `forgets the watch`,
		why:        `clients do not cancel what is canceled, and wait for progress in vain`,
	}
	watchIDAtTheEnd = difference{
		etcd:       `writes the members of a watch response over HTTP in the order of their numbers`,
		meshbridge: `writes watch_id after the events`,
		why:        `all watches of the same keys share the text before it`,
		asEtcd: func(line string) string {
			return regexp.MustCompile(`^(\{"result":\{"header":\{[^}]*\})(,"events":.*)(,"watch_id":"-?\d+")\}\}$`).ReplaceAllString(line, "$1$3$2}}")
		},
	}
	// The random requests under authentication have no such range.
	permissionOfNothing = difference{
		etcd:       `a range that ends before it begins is permitted or not by the order in which permissions were granted`,
		meshbridge: `permits it like the key that it begins with`,
		why:        `nothing is in it, and the same request should get the same answer`,
	}
	// The test of names in certificates sends the header.
	userOfTheGateway = difference{
		etcd:       `takes a call over HTTP without the header Accept, from a client whose certificate has no name, for one of the user that the server's own certificate names`,
		meshbridge: `takes it for one of nobody`,
		why:        `the user is not the client`,
	}
	// The tests of authentication use no such token.
	tokenOfTheFuture = difference{
		etcd:       `waits for the index in a simple token that nobody was given, until the client gives up`,
		meshbridge: `says that the token is invalid`,
		why:        `the request needs no permission to wait, and costs a goroutine`,
	}
	// The random administration has no such password.
	hashingForAnybody = difference{
		etcd:       `hashes the password of a user to add before it looks who asks`,
		meshbridge: `looks first`,
		why:        `it costs 50 ms of CPU that anybody could ask for`,
	}
	peersOfOne = difference{
		etcd:       `lists an address for peers of its member`,
		meshbridge: `lists none`,
		why:        `a server that is all of its cluster has no address for peers`,
	}
	depthOfJSON = difference{
		etcd:       `follows JSON 10,000 levels deep`,
		meshbridge: `follows it for 512`,
		why:        `no request needs more than 400; each costs stack`,
	}
	metadataOfRange = difference{
		etcd:       `decodes the headers Grpc-Metadata-*-Bin of a range, and refuses what is no base64`,
		meshbridge: `ignores them`,
		why:        `a range takes no metadata but a token, so that there is nothing to decode`,
	}
	errorOfOldGateway = difference{
		etcd:       `3.6 says {"code", "message"} when a call over HTTP fails; versions before it add "error", the message again`,
		meshbridge: `says what both do`,
		why:        `APISIX compares "error" with texts`,
		asEtcd: func(answer string) string {
			var failure struct {
				Error   *string
				Code    int
				Message string
			}
			if json.Unmarshal([]byte(answer), &failure) != nil || failure.Error == nil {
				return answer
			}
			return fmt.Sprintf(`{"code":%d,"message":%q}`, failure.Code, failure.Message)
		},
	}
	streamErrorOfOldGateway = difference{
		etcd:       `3.6 says {"error": {"code", "message"}} when a stream over HTTP fails; versions before it have "grpc_code", "http_code" and "http_status"`,
		meshbridge: `says what both do`,
		why:        `APISIX's etcd library does arithmetic with "http_code"`,
		asEtcd: func(answer string) string {
			var failure struct {
				Error *struct {
					Code    int
					Message string
				}
			}
			if json.Unmarshal([]byte(answer), &failure) != nil || failure.Error == nil {
				return answer
			}
			return fmt.Sprintf(`{"error":{"code":%d,"message":%q}}`, failure.Error.Code, failure.Error.Message)
		},
	}
)

// The list is for people to review, so each entry has to tell the whole story.
func TestIntendedDifferencesAreExplained(t *testing.T) {
	t.Parallel()
	for i, d := range []difference{
		hashOfCompaction, keyPutAgain, keepAfterDelete, headerOfCatchUp, headerOfCreation, compactedWatch, watchIDAtTheEnd,
		permissionOfNothing, userOfTheGateway, tokenOfTheFuture, hashingForAnybody, peersOfOne, depthOfJSON,
		metadataOfRange, errorOfOldGateway, streamErrorOfOldGateway,
	} {
		if d.etcd == "" || d.meshbridge == "" || d.why == "" {
			t.Errorf("difference %d is not explained: %+q", i, []string{d.etcd, d.meshbridge, d.why})
		}
	}
}
