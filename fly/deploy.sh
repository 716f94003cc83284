#!/usr/bin/env bash
# Deploys peregrine to Fly, and looks after it there: a thin wrapper of flyctl that says what it does, names all that is
# missing before it begins, and checks that what it did is well. Everything can be said twice.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: fly/deploy.sh VERB [OPTION]...

  deploy            build the image and deploy it; then wait until all Machines and the public address are well
  status            Machines, their checks, releases
  logs              follow the logs
  shell             a shell on a Machine
  rollback          deploy the image of the release before, and wait as deploy does
  destroy           destroy the application, once its name was given again
  worker NAME       let a GPU worker elsewhere into the private network: two WireGuard peers, and what to do with them

  --config FILE     fly/fly.toml (default), or fly/fly.edge.toml: gateways alone, blue-green
  --app NAME        default: as the file says
  --org NAME        of a new application, or of a worker
  --create          deploy: create the application and stage its secrets from the variables of the same names
  --image IMAGE     deploy: this image, nothing is built
  --wait SECONDS    deploy, rollback: how long to wait until all is well (300)
  --machine ID      logs, shell: this one
  --regions A,B     worker: of its two gateways (iad,ewr)
  --confirm NAME    destroy: the application's name, instead of typing it
  --dry-run         print every command and run none

exit: 0 done, 1 failed, 2 wrong usage, 3 something is missing, 4 deployed but not well
USAGE
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
secrets=(PEREGRINE_CLUSTER__SECRET API_KEYS)
# All that Fly has, but for those without a gateway for WireGuard: gru, jnb.
gateways=" ams arn bom cdg dfw ewr fra iad lax lhr nrt ord sin sjc syd yyz "
# Names of Fly: nothing else gets into a command.
name_form='^[a-z0-9][a-z0-9-]{0,62}$'

say() { printf '%s\n' "$*" >&2; }
fail() {
    local code=$1
    shift
    say "deploy.sh: $*"
    exit "$code"
}

# What is printed by --dry-run goes to the caller's stdout, even from within $(…).
exec 3>&1
show() {
    local line
    printf -v line ' %q' "$@"
    printf '+%s\n' "$line" >&3
}
# A command that changes something.
act() {
    if [ "$dry_run" = 1 ]; then show "$@"; else
        say "+ $*"
        "$@"
    fi
}
# A command that only reads, and must not take for ever.
ask() {
    if [ "$dry_run" = 1 ]; then show "$@"; else "${limit[@]}" "$@"; fi
}

verb=${1:-}
case $verb in
-h | --help | help)
    usage
    exit 0
    ;;
deploy | status | logs | shell | rollback | destroy | worker) shift ;;
'') usage >&2 && exit 2 ;;
*) fail 2 "unknown verb: $verb (see --help)" ;;
esac

config=$root/fly/fly.toml app='' org='' create=0 image='' wait_s=300 machine='' regions=iad,ewr confirm='' dry_run=0 worker=''
while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
    --create) create=1 ;;
    --dry-run) dry_run=1 ;;
    --config | --app | --org | --image | --wait | --machine | --regions | --confirm)
        # An empty one is a variable that was not set: what it names is not what is meant by leaving it out.
        [ -n "${1:-}" ] || fail 2 "$option needs a value"
        case $option in
        --config) config=$1 ;;
        --app) app=$1 ;;
        --org) org=$1 ;;
        --image) image=$1 ;;
        --wait) wait_s=$1 ;;
        --machine) machine=$1 ;;
        --regions) regions=$1 ;;
        --confirm) confirm=$1 ;;
        esac
        shift
        ;;
    -*) fail 2 "unknown option: $option (see --help)" ;;
    *)
        if [ "$verb" != worker ] || [ -n "$worker" ]; then
            fail 2 "what is $option? (see --help)"
        fi
        worker=$option
        ;;
    esac
done
[ -f "$config" ] || fail 2 "there is no file $config"
[[ $wait_s =~ ^[0-9]{1,5}$ ]] || fail 2 "--wait: seconds, not $wait_s"
[ -n "$app" ] || app=$(sed -n 's/^app = "\(.*\)"$/\1/p' "$config" | head -n 1)
[[ $app =~ $name_form ]] || fail 2 "not the name of an application: $app"
[ -z "$org" ] || [[ $org =~ $name_form ]] || fail 2 "not the name of an organisation: $org"
[ -z "$machine" ] || [[ $machine =~ ^[0-9a-f]{1,32}$ ]] || fail 2 "not the id of a Machine: $machine"
poll_s=${POLL_SECONDS:-5}

fly=${FLYCTL:-}
for candidate in flyctl fly; do
    [ -n "$fly" ] || ! command -v "$candidate" >/dev/null || fly=$candidate
done
limit=()
! command -v timeout >/dev/null || limit=(timeout 60)

# A list as JSON, of what is named first. An empty one may be `null`.
list() {
    local what=$1 found
    shift
    found=$(ask "$@") || fail 1 "the $what cannot be listed"
    [ "$dry_run" = 1 ] || jq empty <<<"$found" 2>/dev/null || fail 1 "the list of $what is not what was expected"
    printf %s "$found"
}
has_name() {
    jq -e --arg name "$1" 'any(.[]?; (.Name // .name) == $name)' <<<"$2" >/dev/null
}

# --- What is missing -------------------------------------------------------------------------------------------------

missing=()
miss() { missing+=("$1"); }

tell_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    say "deploy.sh: missing, before \`$verb\` can begin:"
    printf '  - %s\n' "${missing[@]}" >&2
    exit 3
}

has_app=0
app_org=''
preflight() {
    if [ "$dry_run" = 1 ]; then
        fly=${fly:-fly}
    else
        command -v jq >/dev/null || miss "jq: your system's package manager has it"
        [ "$verb" != deploy ] && [ "$verb" != rollback ] || command -v curl >/dev/null ||
            miss "curl: your system's package manager has it"
        if [ -z "$fly" ] || ! command -v "$fly" >/dev/null; then
            miss "flyctl: curl -L https://fly.io/install.sh | sh"
            say_what_cannot_be_known
            tell_missing
        fi
    fi
    if ! ask "$fly" auth whoami >/dev/null 2>&1; then
        miss "a login: $fly auth login, or FLY_API_TOKEN"
        say_what_cannot_be_known
        tell_missing
    fi
    # Without jq no answer can be read.
    [ "$dry_run" = 1 ] || command -v jq >/dev/null || tell_missing
    find_org
    find_app
    tell_missing
}

# What depends on flyctl and a login, by name, so that nobody finds it out one after the other.
say_what_cannot_be_known() {
    say "deploy.sh: not looked for, since that takes flyctl and a login: the application $app${org:+, the organisation $org}, its secrets ${secrets[*]}"
}

find_org() {
    [ -n "$org" ] || return 0
    local found
    found=$(list organisations "$fly" orgs list --json) || exit
    [ "$dry_run" = 1 ] || jq -e --arg org "$org" 'has($org)' <<<"$found" >/dev/null ||
        miss "the organisation $org: you are in $(jq -r 'keys? | join(", ")' <<<"$found")"
}

find_app() {
    local found
    found=$(list applications "$fly" apps list --json) || exit
    if [ "$dry_run" = 1 ]; then
        has_app=$((1 - create))
    elif has_name "$app" "$found"; then
        has_app=1
        app_org=$(jq -r --arg app "$app" 'first(.[] | select((.Name // .name) == $app)) | (.Organization // .organization) | (.Slug // .slug)? // ""' <<<"$found")
    fi
    # A worker joins an organisation's network, there need not be an application yet; one that is gone is destroyed.
    [ "$verb" != worker ] && [ "$verb" != destroy ] || return 0
    if [ "$has_app" = 0 ] && [ "$create" = 0 ]; then
        miss "the application $app: fly/deploy.sh deploy --create --org ORG${app:+ --app $app}"
    elif [ "$has_app" = 0 ] && [ -z "$org" ]; then
        miss "an organisation for the new application: --org"
    fi
    [ "$verb" != deploy ] || find_secrets
}

find_secrets() {
    local found='[]' name
    if [ "$has_app" = 1 ]; then
        found=$(list secrets "$fly" secrets list --app "$app" --json) || exit
    fi
    for name in "${secrets[@]}"; do
        if [ "$dry_run" = 1 ]; then
            [ "$create" = 0 ] || staged+=("$name")
        elif ! has_name "$name" "$found"; then
            if [ "$create" = 1 ] && [ -n "${!name:-}" ]; then
                staged+=("$name")
            else
                miss "the secret $name: $(how_to_get "$name")"
            fi
        fi
    done
}

how_to_get() {
    case $1 in
    API_KEYS) printf %s "a file of \`peregrine keys new\`, fly secrets set --stage --app $app API_KEYS=- <FILE" ;;
    *) printf %s "openssl rand -hex 32 | fly secrets set --stage --app $app $1=-" ;;
    esac
    [ "$create" = 0 ] || printf %s ", or give the variable $1"
}

# --- Verbs -----------------------------------------------------------------------------------------------------------

staged=()
deploy() {
    preflight
    if [ "$has_app" = 0 ]; then
        act "$fly" apps create "$app" --org "$org" || fail 1 "$app could not be created; names are unique among all users of Fly"
    fi
    local name
    for name in ${staged[@]+"${staged[@]}"}; do
        # By stdin: a command line can be read by others.
        # No pipeline: a dry run reads nothing, and who is not read fails it.
        act "$fly" secrets set --stage --app "$app" "$name=-" < <(printf %s "${!name:-}")
    done
    local source=(--dockerfile "$root/fly/Dockerfile" --ignorefile "$root/.dockerignore")
    [ -z "$image" ] || source=(--image "$image")
    release "${source[@]}"
}

# Deploys, then waits until it is well.
release() {
    # flyctl takes the folder that it is in as the one to build.
    cd "$root"
    if ! act "$fly" deploy --config "$config" --app "$app" "$@" --yes; then
        say "deploy.sh: the deploy failed; Machines may be of both releases. Back to the one before:"
        say "  fly/deploy.sh rollback --app $app --config $config"
        exit 1
    fi
    verify
}

# The process groups that the file names, one a line.
groups() {
    sed -n '/^\[processes\]$/,/^\[[^p]/s/^\([a-z][a-z0-9_-]*\) = .*/\1/p' "$config"
}

# What is not well of the Machines, one a line; nothing: all are. A standby is stopped until it is needed.
unwell() {
    jq -r --arg groups "$(groups)" '
        [.[]? | select((.config.standbys // [] | length) == 0)] as $all
        | ($groups | split("\n")[] | select(. != "") | . as $group
            | select(any($all[]; .config.metadata.fly_process_group == $group) | not)
            | "there is no Machine of \($group)"),
          ($all[] | select(.state != "started") | "\(.id) in \(.region) is \(.state)"),
          ($all[] | . as $machine | .checks[]? | select(.status != "passing")
            | "\($machine.id) in \($machine.region): check \(.name) is \(.status)")' <<<"$1"
}

verify() {
    local url="https://$app.fly.dev/health/ready" machines sick deadline
    if [ "$dry_run" = 1 ]; then
        show "$fly" machine list --app "$app" --json
        show curl --silent --fail --max-time 10 --output /dev/null "$url"
        return 0
    fi
    deadline=$((SECONDS + wait_s))
    while :; do
        if ! machines=$(ask "$fly" machine list --app "$app" --json) || ! sick=$(unwell "$machines"); then
            sick="the Machines cannot be listed"
        elif [ -z "$sick" ]; then
            curl --silent --fail --max-time 10 --output /dev/null "$url" || sick="$url does not answer with 200"
        fi
        if [ -z "$sick" ]; then
            say "deploy.sh: $app is well: $(jq 'length' <<<"$machines") Machines, and $url answers"
            return 0
        fi
        [ "$SECONDS" -lt "$deadline" ] || break
        sleep "$poll_s"
    done
    say "deploy.sh: deployed, but not well after $wait_s s:"
    say "$sick"
    say "look: fly/deploy.sh logs --app $app. Back to the release before: fly/deploy.sh rollback --app $app --config $config"
    exit 4
}

rollback() {
    preflight
    local releases now before
    releases=$(list releases "$fly" releases --app "$app" --image --json) || exit
    if [ "$dry_run" = 1 ]; then
        before="IMAGE-OF-THE-RELEASE-BEFORE"
    else
        releases=$(jq -c '[.[]? | {version: (.Version // .version), status: (.Status // .status), image: (.ImageRef // .image_ref // .imageRef)}]
            | sort_by(-.version)' <<<"$releases") || fail 1 "the list of releases is not what was expected"
        now=$(jq -r 'first(.[]).image // ""' <<<"$releases")
        # The newest that was deployed whole, with another image than the newest of all: that one may have failed.
        before=$(jq -r 'first(.[]).image as $now | first(.[] | select(.image != $now and .image != null
            and (.status == "complete" or .status == "succeeded"))).image // ""' <<<"$releases")
        [ -n "$before" ] || fail 1 "no release before this one has another image that was deployed whole"
        say "deploy.sh: from $now back to $before"
    fi
    release --image "$before"
}

status() {
    preflight
    act "$fly" status --app "$app"
    act "$fly" checks list --app "$app"
    act "$fly" releases --app "$app" --image
}

logs() {
    preflight
    act "$fly" logs --app "$app" ${machine:+--machine "$machine"}
}

shell() {
    preflight
    act "$fly" ssh console --app "$app" ${machine:+--machine "$machine"}
}

destroy() {
    preflight
    if [ "$dry_run" = 0 ]; then
        if [ "$has_app" = 0 ]; then
            say "deploy.sh: there is no application $app of yours: nothing to destroy"
            return 0
        fi
        if [ -z "$confirm" ]; then
            printf 'This destroys %s with all its Machines. Its name, to go on: ' "$app" >&2
            IFS= read -r confirm || confirm=''
        fi
        [ "$confirm" = "$app" ] || fail 1 "\`$confirm\` is not $app: nothing was destroyed"
    fi
    act "$fly" apps destroy "$app" --yes
}

worker() {
    # "-iad" and a number less: names of interfaces have 15 characters at most.
    [[ $worker =~ ^[a-z][a-z0-9-]{0,30}$ ]] || fail 2 "worker: its name: a letter, then up to 30 letters, digits and -"
    # The platform takes these for those of a person's session, and gives them no name.
    [[ $worker != interactive* ]] || fail 2 "worker: names with \`interactive\` are not in DNS"
    [[ $regions =~ ^[a-z]{3},[a-z]{3}$ ]] || fail 2 "--regions: two, as iad,ewr"
    local first=${regions%,*} second=${regions#*,} region
    [ "$first" != "$second" ] || fail 2 "--regions: two different ones: a gateway is one machine"
    for region in "$first" "$second"; do
        [[ $gateways == *" $region "* ]] || fail 2 "--regions: there is no WireGuard gateway in $region; there is in:$gateways"
    done
    preflight
    local owner=${org:-$app_org} peers at=0 peer file
    [ "$dry_run" = 0 ] || owner=${owner:-ORG}
    [ -n "$owner" ] || fail 3 "missing: the organisation whose network it joins: --org"
    peers=$(list peers "$fly" wireguard list "$owner" --json) || exit
    for region in "$first" "$second"; do
        peer=$worker-$region file=peregrine$at.conf
        at=$((at + 1))
        if [ "$dry_run" = 0 ] && has_name "$peer" "$peers"; then
            say "deploy.sh: there is a peer $peer already; its private key is in the file that was written then. Anew: $fly wireguard remove $owner $peer"
            continue
        fi
        [ "$dry_run" = 1 ] || [ ! -e "$file" ] || fail 1 "$file is here already: it may be another peer's key. Move it away first"
        # The file holds a private key.
        (umask 077 && act "$fly" wireguard create "$owner" "$region" "$peer" "$file") || fail 1 "the peer $peer was not created"
    done
    say "deploy.sh: on the worker, see fly/worker.md from step 2 on: copy peregrine0.conf and peregrine1.conf to /etc/wireguard/,"
    say "  wg-quick up peregrine0, then start the image with the peer's address, the resolver and $app.internal as seed"
}

"$verb"
